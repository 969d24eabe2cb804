create extension if not exists pg_trgm;

create table products (
  id          uuid primary key default new_id(),
  name        text collate "C" not null check (name ~ '\S' and char_length(name) <= 200),
  description text check (char_length(description) <= 5000),
  category    text check (char_length(category) <= 100),
  sku         text check (char_length(sku) <= 64),
  price_cents bigint not null check (price_cents >= 0),
  quantity    bigint not null check (quantity >= 0),
  reserved    bigint not null default 0 check (reserved >= 0),
  seller_id   uuid not null,
  version     bigint not null default 1,
  created_at  timestamptz(3) not null default now(),
  updated_at  timestamptz(3) not null default now(),
  archived_at timestamptz
);
create index products_by_created on products (created_at, id) where archived_at is null;
create index products_by_price on products (price_cents, id) where archived_at is null;
create index products_by_name on products (name, id) where archived_at is null;
create index products_by_category on products (category, created_at, id) where archived_at is null;
create index products_by_seller on products (seller_id, created_at, id) where archived_at is null;
create index products_by_text on products using gin ((name || ' ' || coalesce(description, '')) gin_trgm_ops) where archived_at is null;

create table reservations (
  order_id   uuid primary key,
  state      text not null check (state in ('RESERVED', 'REJECTED', 'RELEASED')),
  lines      jsonb not null,
  shortages  jsonb not null default '[]',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create table stock_movements (
  id         bigint generated always as identity primary key,
  product_id uuid not null references products (id),
  order_id   uuid references reservations (order_id),
  kind       text not null check (kind in ('INITIAL', 'ADJUSTMENT', 'RESERVE', 'RELEASE')),
  delta      bigint not null check (delta <> 0),
  balance    bigint not null check (balance >= 0),
  reason     text not null,
  created_at timestamptz not null default clock_timestamp(),
  check ((order_id is not null) = (kind in ('RESERVE', 'RELEASE')))
);
create unique index stock_movements_once on stock_movements (order_id, product_id, kind) where order_id is not null;
create index stock_movements_by_product on stock_movements (product_id, id);
