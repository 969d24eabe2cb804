-- A login and what comes of it: its refresh tokens, each made of the one before, and the access tokens that bear its id.
create table sessions (
  id         uuid primary key default gen_random_uuid(),
  user_id    bigint not null references users,
  created_at timestamptz not null default now(),
  -- of its newest refresh token
  expires_at timestamptz not null,
  ended_at   timestamptz
);
create index sessions_by_user on sessions (user_id) where ended_at is null;
create index sessions_by_end on sessions (ended_at) where ended_at is not null;
create index sessions_by_expiry on sessions (expires_at);

create table refresh_tokens (
  -- SHA-256 of the token: who reads this table can't use it
  hash       bytea primary key,
  session_id uuid not null references sessions on delete cascade,
  created_at timestamptz not null default now(),
  used_at    timestamptz
);
create index refresh_tokens_by_session on refresh_tokens (session_id);
create index refresh_tokens_by_use on refresh_tokens (used_at) where used_at is not null;

-- Logins that failed or are under way, of an account and from an address, within a minute from the first one.
create table login_attempts (
  -- a hash: no address, and no e-mail of somebody who has no account, is kept
  subject  bytea primary key,
  since    timestamptz not null default now(),
  attempts integer not null default 1 check (attempts >= 0)
);
create index login_attempts_by_age on login_attempts (since);
