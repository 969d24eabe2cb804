-- UUIDv7 (RFC 9562, section 5.7): the time in milliseconds, and 74 random bits. A restored backup rewinds a sequence, which would then give the
-- ids of lost rows to new ones; these never repeat, whatever is restored.
create function new_id() returns uuid language sql volatile parallel safe
  return encode(
    set_bit(
      set_bit(
        overlay(uuid_send(gen_random_uuid()) placing substring(int8send(floor(extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6),
        52, 1),
      53, 1), -- version 4 becomes 7
    'hex')::uuid;

create table orders (
  id              uuid primary key default new_id(),
  user_id         uuid not null,
  idempotency_key text not null,
  -- of the validated items, lines of one product added up and sorted
  request_hash    text not null,
  -- by which a reply about its stock is known to be about these lines (contracts/lines.ts)
  lines_digest    text not null,
  status          text not null default 'PENDING' check (status in ('PENDING', 'CONFIRMED', 'REJECTED', 'CANCELLED')),
  total_cents     bigint not null check (total_cents >= 0),
  reason          text,
  version         bigint not null default 1,
  -- milliseconds, as JavaScript has them: an answer that is given again must be the first one to the letter, and a cursor hold the exact value
  created_at      timestamptz(3) not null default now(),
  updated_at      timestamptz(3) not null default now(),
  unique (user_id, idempotency_key)
);

-- Lists, newest first: of all orders, and of what is asked for.
create index orders_by_created on orders (created_at, id);
create index orders_by_user on orders (user_id, created_at, id);
create index orders_by_status on orders (status, created_at, id);
create index orders_by_user_and_status on orders (user_id, status, created_at, id);

create table order_lines (
  order_id         uuid not null references orders (id),
  product_id       uuid not null,
  name             text not null,
  unit_price_cents bigint not null check (unit_price_cents >= 0),
  quantity         bigint not null check (quantity > 0),
  primary key (order_id, product_id)
);

create table order_history (
  id       bigint generated always as identity primary key,
  order_id uuid not null references orders (id),
  status   text not null check (status in ('PENDING', 'CONFIRMED', 'REJECTED', 'CANCELLED')),
  at       timestamptz(3) not null default now(),
  -- the state machine never comes back to a state
  unique (order_id, status)
);

create table outbox (
  id              bigint generated always as identity primary key,
  order_id        uuid not null references orders (id),
  -- Whose turn it is: what is new is emitted in rotation among users, so that one buyer's thousand orders don't delay the next buyer's
  -- first. The nil UUID is nobody in particular.
  user_id         uuid not null default '00000000-0000-0000-0000-000000000000',
  event           text not null,
  payload         jsonb not null,
  state           text not null default 'PENDING' check (state in ('PENDING', 'SETTLED', 'PARKED')),
  -- What it counts among those in flight: an order of a hundred lines takes products as long as many of one line. And large ones wait in
  -- turns of their own.
  weight          integer not null default 1 check (weight > 0),
  large           boolean not null default false,
  attempts        integer not null default 0,
  refusals        integer not null default 0,
  next_attempt_at timestamptz not null default now(),
  -- the last time, by which is known what is in flight; null while it is new
  emitted_at      timestamptz,
  last_error      text,
  created_at      timestamptz not null default now(),
  settled_at      timestamptz,
  unique (order_id, event)
);

-- How an event's replies come in, over all nodes. Written where that changes: an ordinary reply is seen in the outbox.
create table outbox_events (
  event        text primary key,
  -- since when nothing replies, although rows were emitted; null while replies come
  silent_since timestamptz,
  -- the last reply that settled nothing: a refusal, or one that did not fit
  replied_at   timestamptz,
  -- a row that was emitted before is due, whatever its next attempt: it is lost, or its reply is overdue
  due_before   timestamptz
);

-- For lists: what is new.
create index outbox_new on outbox (id) where state = 'PENDING' and attempts = 0;
-- For the relay: what is new, and what was emitted and waits for its reply, by the time when it is due and by that when it was emitted. Each has words
-- of its own (`attempts < 1` is `= 0`), so that no statement finds its rows by another.
create index outbox_new_by_user on outbox (event, large, user_id, id) where state = 'PENDING' and attempts < 1;
create index outbox_unanswered on outbox (event, large, next_attempt_at) where state = 'PENDING' and attempts > 0;
create index outbox_emitted on outbox (event, large, emitted_at) where state = 'PENDING' and emitted_at is not null;
create index outbox_settled on outbox (event, settled_at) where state = 'SETTLED';
create index outbox_parked on outbox (id) where state = 'PARKED';

-- Each order leaves dead entries in the small indexes that the relay reads, and by default they would be cleared away
-- after a fifth of all rows have changed: at a million rows a claim reads a hundred times as many pages by then. And a
-- backlog must soon be known to the planner, or it might count what is unanswered by way of everything that waits.
alter table outbox set (
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
  autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000);
