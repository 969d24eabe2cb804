create table users (
  id            bigint generated always as identity primary key,
  -- as given
  email         text not null check (char_length(email) <= 254),
  -- after Unicode NFKC and lower-casing, by which it is compared
  email_key     text not null unique,
  password_hash text not null,
  role          text not null default 'user' check (role in ('user', 'admin')),
  created_at    timestamptz not null default now()
);

-- The newest one signs; all are told to verifiers. Every node of the service reads them here, so all sign alike.
create table signing_keys (
  kid         text primary key,
  private_key text not null,
  created_at  timestamptz not null default now()
);
