-- Until then, and for 15 minutes, the same registration may be repeated: see users.register.
alter table users add column first_login_at timestamptz;

-- The highest cost of any stored hash, which every login looks up: "$2b$12$…" has cost 12.
create index users_by_cost on users ((substr(password_hash, 5, 2)::int)) where password_hash ~ '^\$2[aby]\$[0-9]{2}\$';

-- Where people have logged in from: the limit of an account over all addresses does not lock them out there.
create table known_addresses (
  user_id      bigint not null references users on delete cascade,
  -- a hash of the user and the address: no address is kept
  address      bytea not null,
  last_used_at timestamptz not null default now(),
  primary key (user_id, address)
);
create index known_addresses_by_use on known_addresses (last_used_at);
