create table orders (
  id              uuid primary key default new_id(),
  user_id         uuid not null,
  idempotency_key text not null,
  request_hash    text not null,
  status          text not null default 'PENDING' check (status in ('PENDING', 'CONFIRMED', 'REJECTED', 'CANCELLED')),
  total_cents     bigint not null check (total_cents >= 0),
  reason          text,
  version         bigint not null default 1,
  created_at      timestamptz(3) not null default now(),
  updated_at      timestamptz(3) not null default now(),
  unique (user_id, idempotency_key)
);

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
  unique (order_id, status)
);

create table outbox (
  id              bigint generated always as identity primary key,
  order_id        uuid not null references orders (id),
  event           text not null,
  payload         jsonb not null,
  state           text not null default 'PENDING' check (state in ('PENDING', 'SETTLED', 'PARKED')),
  attempts        integer not null default 0,
  refusals        integer not null default 0,
  next_attempt_at timestamptz not null default now(),
  last_error      text,
  created_at      timestamptz not null default now(),
  settled_at      timestamptz,
  unique (order_id, event)
);

create index outbox_new on outbox (id) where state = 'PENDING' and attempts = 0;
create index outbox_unanswered on outbox (next_attempt_at) where state = 'PENDING' and attempts > 0;
create index outbox_settled on outbox (settled_at) where state = 'SETTLED';
create index outbox_parked on outbox (id) where state = 'PARKED';
