-- UUIDv7 (RFC 9562, section 5.7): the time in milliseconds, and 74 random bits. Restoring a backup rewinds sequences, which would then give
-- the ids of lost rows to new ones; these ids never repeat, whatever is restored.
create function new_id() returns uuid language sql volatile parallel safe
  return encode(
    set_bit(
      set_bit(
        overlay(uuid_send(gen_random_uuid()) placing substring(int8send(floor(extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6),
        52, 1),
      53, 1), -- version 4 becomes 7
    'hex')::uuid;

create table users (
  id              uuid primary key default new_id(),
  -- as the user wrote it
  email           text not null check (char_length(email) <= 254),
  -- in NFKC and lower case, for comparison
  email_key       text not null unique,
  password_hash   text not null,
  role            text not null default 'user' check (role in ('user', 'admin')),
  created_at      timestamptz not null default now(),
  -- Before the first login, a registration may be repeated for 15 minutes: see users.register.
  first_login_at  timestamptz,
  disabled_at     timestamptz,
  -- tells gateways which tokens have an outdated role
  role_changed_at timestamptz
);
-- For the highest cost of all stored hashes, which every login reads: "$2b$12$…" has cost 12.
create index users_by_cost on users ((substr(password_hash, 5, 2)::int)) where password_hash ~ '^\$2[aby]\$[0-9]{2}\$';
create index users_enabled_admins on users (id) where role = 'admin' and disabled_at is null;
create index users_by_role_change on users (role_changed_at) where role_changed_at is not null;

-- The newest key signs, and verifiers accept all of them. Every node of the service reads its keys here.
create table signing_keys (
  kid         text primary key,
  private_key text not null,
  created_at  timestamptz not null default now(),
  -- The longest ACCESS_TOKEN_TTL, in seconds, of all nodes that sign with this key. A node raises it before it signs.
  token_ttl   integer not null default 0
);

-- A login, with its chain of refresh tokens and the access tokens that contain its id.
create table sessions (
  id         uuid primary key default gen_random_uuid(),
  user_id    uuid not null references users,
  created_at timestamptz not null default now(),
  -- the expiry of its newest refresh token
  expires_at timestamptz not null,
  ended_at   timestamptz
);
create index sessions_by_user on sessions (user_id) where ended_at is null;
create index sessions_by_end on sessions (ended_at) where ended_at is not null;
create index sessions_by_expiry on sessions (expires_at);

create table refresh_tokens (
  -- SHA-256 of the token, so that nobody who reads this table can use it
  hash       bytea primary key,
  session_id uuid not null references sessions on delete cascade,
  created_at timestamptz not null default now(),
  used_at    timestamptz
);
create index refresh_tokens_by_session on refresh_tokens (session_id);
create index refresh_tokens_by_use on refresh_tokens (used_at) where used_at is not null;

-- Failed and current logins to an account and from an address, within a minute of the first one.
create table login_attempts (
  -- a hash: neither addresses nor e-mail addresses without an account are stored
  subject  bytea primary key,
  since    timestamptz not null default now(),
  attempts integer not null default 1 check (attempts >= 0)
);
create index login_attempts_by_age on login_attempts (since);

-- The addresses from which users have logged in: there, the limit of an account over all addresses does not lock them out.
create table known_addresses (
  user_id      uuid not null references users on delete cascade,
  -- a hash of the user and the address, which is not stored itself
  address      bytea not null,
  last_used_at timestamptz not null default now(),
  primary key (user_id, address)
);
create index known_addresses_by_use on known_addresses (last_used_at);

-- Who did what. It contains only the ids of users and no foreign keys, since it outlives the accounts.
create table audit_log (
  id         bigint generated always as identity primary key,
  at         timestamptz not null default clock_timestamp(),
  -- a user's id, or system; null if unknown
  actor      text check (actor ~ '^(system|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$'),
  action     text not null,
  subject    text check (char_length(subject) <= 64),
  address    text check (char_length(address) <= 64),
  request_id text check (char_length(request_id) <= 128)
);
create index audit_log_by_actor on audit_log (actor, id);
create index audit_log_by_subject on audit_log (subject, id);
create index audit_log_by_action on audit_log (action, id);
-- counts failures, since nobody may fill the disk without logging in
create index audit_log_failures on audit_log (at) where action in ('login.failed', 'password.refused', 'failures.omitted');
-- counts sessions, since accounts are free, and repeated logins must not fill the disk either
create index audit_log_sessions on audit_log (subject, at)
  where action in ('login.succeeded', 'logout', 'refresh.reused', 'password.changed', 'sessions.omitted');
