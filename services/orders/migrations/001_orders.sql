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

create table orders (
  id              uuid primary key default new_id(),
  user_id         uuid not null,
  idempotency_key text not null,
  -- of the request's content, with the lines of each product merged and sorted (order.ts, hashRequest)
  request_hash    text not null,
  -- shows whether a reply is about these lines (contracts/lines.ts)
  lines_digest    text not null,
  status          text not null default 'PENDING' check (status in ('PENDING', 'CONFIRMED', 'REJECTED', 'CANCELLED')),
  total_cents     bigint not null check (total_cents >= 0),
  reason          text,
  version         bigint not null default 1,
  -- milliseconds, the precision of JavaScript: a replayed response must equal the first one, and a cursor must contain the exact value
  created_at      timestamptz(3) not null default now(),
  updated_at      timestamptz(3) not null default now(),
  unique (user_id, idempotency_key)
);

-- Lists, newest first, without a filter and with each combination of filters.
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
  -- no order is in a state twice
  unique (order_id, status)
);
