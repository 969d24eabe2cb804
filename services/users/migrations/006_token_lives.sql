-- Seconds: the longest ACCESS_TOKEN_TTL of any node that may sign with this key. Each node raises it before it signs.
alter table signing_keys add column token_ttl integer not null default 0;
