-- The tables of the transactional outbox (mixins/outbox.mixin.ts). They refer to no other table, so that any service can have a copy of this
-- file.
create table outbox (
  id              bigint generated always as identity primary key,
  -- the id of what the message is about, such as an order
  subject         uuid not null,
  -- New rows are emitted in rotation among users, so that one user's thousand messages don't delay the first one of another user. The nil UUID
  -- stands for no particular user.
  user_id         uuid not null default '00000000-0000-0000-0000-000000000000',
  event           text not null,
  payload         jsonb not null,
  state           text not null default 'PENDING' check (state in ('PENDING', 'SETTLED', 'PARKED')),
  -- How much of the in-flight cap the row takes: an order of a hundred lines takes products as long as many orders of one line. Large rows
  -- have queues of their own.
  weight          integer not null default 1 check (weight > 0),
  large           boolean not null default false,
  attempts        integer not null default 0,
  refusals        integer not null default 0,
  next_attempt_at timestamptz not null default now(),
  -- the last attempt, which shows whether the row is in flight; null while the row is new
  emitted_at      timestamptz,
  last_error      text,
  created_at      timestamptz not null default now(),
  settled_at      timestamptz,
  unique (subject, event)
);

-- Whether the events get replies, for all nodes. Written only when that changes: ordinary replies show in the outbox.
create table outbox_events (
  event        text primary key,
  -- since when there has been no reply although rows were emitted; null while replies arrive
  silent_since timestamptz,
  -- the last reply that settled nothing: a refusal, or one that did not fit
  replied_at   timestamptz,
  -- rows emitted before this are due, whatever their next attempt: they are lost, or their replies are overdue
  due_before   timestamptz
);

-- For lists of new rows.
create index outbox_new on outbox (id) where state = 'PENDING' and attempts = 0;
-- For the relay: new rows, and emitted ones by the time when they are due and by the time when they were emitted. Each predicate is written
-- differently (`attempts < 1` is `= 0`), so that each statement can use only the index that it needs.
create index outbox_new_by_user on outbox (event, large, user_id, id) where state = 'PENDING' and attempts < 1;
create index outbox_unanswered on outbox (event, large, next_attempt_at) where state = 'PENDING' and attempts > 0;
create index outbox_emitted on outbox (event, large, emitted_at) where state = 'PENDING' and emitted_at is not null;
create index outbox_settled on outbox (event, settled_at) where state = 'SETTLED';
create index outbox_parked on outbox (id) where state = 'PARKED';

-- Each row leaves dead entries in the small indexes that the relay reads. With the default settings they would be removed after a fifth of all
-- rows have changed: with a million rows, a claim would by then read a hundred times as many pages. And the planner must soon know of a
-- backlog, or it might count emitted rows by reading all new ones.
alter table outbox set (
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
  autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000);
