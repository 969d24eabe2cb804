-- Successful requests that had an Idempotency-Key, with their responses (mixins/idempotency.ts). A row older than 24 hours counts as absent,
-- and is deleted. The table refers to no other one, so that any service can have a copy of this file.
create table idempotent_requests (
  user_id      uuid not null,
  key          text collate "C" not null check (char_length(key) between 1 and 255),
  -- of the action and its params
  request_hash text not null,
  -- Not jsonb, which would reorder the fields: a repeated response equals the first one to the letter. The largest is an order of 100 lines,
  -- 0.1 MB. Null only within the transaction that makes the change.
  response     json,
  created_at   timestamptz not null default now(),
  primary key (user_id, key)
);
create index idempotent_requests_by_age on idempotent_requests (created_at);
