create extension if not exists pg_trgm;

create table products (
  id          bigint generated always as identity primary key,
  name        text collate "C" not null check (name ~ '\S' and char_length(name) <= 200),
  description text check (char_length(description) <= 5000),
  category    text check (char_length(category) <= 100),
  sku         text check (char_length(sku) <= 64),
  price_cents bigint not null check (price_cents >= 0),
  -- What can be sold now. The check is the last guard against overselling, below all code.
  quantity    bigint not null check (quantity >= 0),
  -- Units of orders that hold a reservation: with quantity they bound an adjustment, so that a release always fits.
  reserved    bigint not null default 0 check (reserved >= 0),
  seller_id   bigint not null,
  version     bigint not null default 1,
  -- milliseconds, as JavaScript has them: a cursor must hold the exact value
  created_at  timestamptz(3) not null default now(),
  updated_at  timestamptz(3) not null default now(),
  archived_at timestamptz
);

-- One for each sort of the list, either way round; and for what it filters by.
create index products_by_created on products (created_at, id) where archived_at is null;
create index products_by_price on products (price_cents, id) where archived_at is null;
create index products_by_name on products (name, id) where archived_at is null;
create index products_by_category on products (category, created_at, id) where archived_at is null;
create index products_by_seller on products (seller_id, created_at, id) where archived_at is null;
create index products_by_text on products using gin ((name || ' ' || coalesce(description, '')) gin_trgm_ops) where archived_at is null;

-- The inbox and the stored answer at once: what became of an order's stock. Never deleted.
create table reservations (
  order_id   bigint primary key,
  state      text not null check (state in ('RESERVED', 'REJECTED', 'RELEASED')),
  -- [{product_id, quantity}]; empty where a cancel came before its create
  lines      jsonb not null,
  -- [{product_id, wanted, available}] of a REJECTED one
  shortages  jsonb not null default '[]',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

-- The ledger: quantity is the sum of its deltas, at any moment. Never deleted.
create table stock_movements (
  id         bigint generated always as identity primary key,
  product_id bigint not null references products (id),
  order_id   bigint references reservations (order_id),
  kind       text not null check (kind in ('INITIAL', 'ADJUSTMENT', 'RESERVE', 'RELEASE')),
  delta      bigint not null check (delta <> 0),
  balance    bigint not null check (balance >= 0),
  reason     text not null,
  -- when it was written, which is under the product's lock: now() is when its transaction began
  created_at timestamptz not null default clock_timestamp(),
  check ((order_id is not null) = (kind in ('RESERVE', 'RELEASE')))
);

-- One of a kind for each order and product: a repeated event can't take or give stock twice, whatever the code does.
create unique index stock_movements_once on stock_movements (order_id, product_id, kind) where order_id is not null;
create index stock_movements_by_product on stock_movements (product_id, id);
