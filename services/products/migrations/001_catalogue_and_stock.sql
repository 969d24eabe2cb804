create extension if not exists pg_trgm;

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

-- With these indexes, lists take as long with a million products as with a thousand: `npm run bench -- --scale` shows each plan.
create table products (
  id          uuid primary key default new_id(),
  name        text collate "C" not null check (name ~ '\S' and char_length(name) <= 200),
  description text check (char_length(description) <= 5000),
  category    text check (char_length(category) <= 100),
  sku         text check (char_length(sku) <= 64),
  price_cents bigint not null check (price_cents >= 0),
  -- Units available for sale. The check is the last guard against overselling.
  quantity    bigint not null check (quantity >= 0),
  -- Units reserved for orders. Adjustments are limited by the sum of both, so that a release always fits.
  reserved    bigint not null default 0 check (reserved >= 0),
  seller_id   uuid not null,
  -- Its ETag is "<edits>-<version>": every change increments the version, but changes of the stock, such as sales, leave the edits as they are.
  version     bigint not null default 1,
  edits       bigint not null default 1,
  -- milliseconds, the precision of JavaScript: a cursor must contain the exact value
  created_at  timestamptz(3) not null default now(),
  updated_at  timestamptz(3) not null default now(),
  archived_at timestamptz,
  -- Every reservation would have to update an index on quantity, or one with quantity in its predicate. This column changes only when a
  -- product sells out or is available again.
  sold_out    boolean not null generated always as (quantity = 0) stored
) with (fillfactor = 90); -- leaves room on each page for heap-only updates of the quantity, which touch no index

-- One for each sort order of the list (either direction), alone and combined with each filter.
create index products_by_created on products (created_at, id) where archived_at is null;
create index products_by_price on products (price_cents, id) where archived_at is null;
create index products_by_name on products (name, id) where archived_at is null;
create index products_by_category on products (category, created_at, id) where archived_at is null;
create index products_by_category_and_price on products (category, price_cents, id) where archived_at is null;
create index products_by_category_and_name on products (category, name, id) where archived_at is null;
create index products_by_seller on products (seller_id, created_at, id) where archived_at is null;
create index products_by_seller_and_price on products (seller_id, price_cents, id) where archived_at is null;
create index products_by_seller_and_name on products (seller_id, name, id) where archived_at is null;
create index products_sold_out_by_created on products (created_at, id) where sold_out and archived_at is null;
create index products_sold_out_by_price on products (price_cents, id) where sold_out and archived_at is null;
create index products_sold_out_by_name on products (name, id) where sold_out and archived_at is null;

-- Trigrams can't find words of fewer than three letters, such as "xl", "台灯" or "4K"; these pieces of one and two characters can. The high
-- cost keeps the planner from evaluating the function row by row. Case is folded as by ilike under "C".
create function letter_pairs(text) returns text[]
  language sql immutable strict parallel safe cost 10000
  return string_to_array(translate(lower($1 collate "C"), e'\x01', ' '), null)
    || string_to_array(regexp_replace(translate(lower($1 collate "C"), e'\x01', ' '), '(..)', e'\\1\x01', 'g'), e'\x01')
    || string_to_array(regexp_replace(substr(translate(lower($1 collate "C"), e'\x01', ' '), 2), '(..)', e'\\1\x01', 'g'), e'\x01');

-- Search reads the first 300 characters of name and description, in lower case. With whole descriptions, one client could cause searches that
-- take seconds (repetitive text is compared at each position) and writes that add thousands of index entries. `like` is five times as fast as
-- `ilike`. fastupdate is off: with a pending list, the write that finds it full has to write everybody's entries.
create index products_by_text on products
  using gin (lower(left(name || ' ' || coalesce(left(description, 300), ''), 300)) gin_trgm_ops) with (fastupdate = off) where archived_at is null;
create index products_by_letter_pairs on products
  using gin (letter_pairs(lower(left(name || ' ' || coalesce(left(description, 300), ''), 300)))) with (fastupdate = off) where archived_at is null;
-- How common words and pairs are. Without these statistics the planner assumes that every word is rare, and sorts half a million products by
-- price although it could read the first 21 in that order.
create statistics products_text on (lower(left(name || ' ' || coalesce(left(description, 300), ''), 300))) from products;
create statistics products_letter_pairs on (letter_pairs(lower(left(name || ' ' || coalesce(left(description, 300), ''), 300)))) from products;

-- The inbox of order events and the stored outcome of each order. Never deleted.
create table reservations (
  order_id   uuid primary key,
  state      text not null check (state in ('RESERVED', 'REJECTED', 'RELEASED')),
  -- [{product_id, quantity}]; empty if the cancel overtook the create
  lines      jsonb not null,
  -- [{product_id, wanted, available}] if REJECTED
  shortages  jsonb not null default '[]',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

-- The ledger: at any moment, a product's quantity is the sum of its deltas. Never deleted.
create table stock_movements (
  id         bigint generated always as identity primary key,
  product_id uuid not null references products (id),
  order_id   uuid references reservations (order_id),
  kind       text not null check (kind in ('INITIAL', 'ADJUSTMENT', 'RESERVE', 'RELEASE')),
  delta      bigint not null check (delta <> 0),
  balance    bigint not null check (balance >= 0),
  reason     text not null,
  -- the time of writing, under the product's lock; now() would be the start of the transaction
  created_at timestamptz not null default clock_timestamp(),
  check ((order_id is not null) = (kind in ('RESERVE', 'RELEASE')))
);

-- At most one movement of each kind per order and product: a repeated event can't move stock twice, whatever the code does.
create unique index stock_movements_once on stock_movements (order_id, product_id, kind) where order_id is not null;
create index stock_movements_by_product on stock_movements (product_id, id);
