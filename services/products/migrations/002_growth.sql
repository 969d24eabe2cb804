-- What the list needs to cost the same with a million products as with a thousand: `npm run bench -- --scale` shows
-- each plan. Where a million are there already, this takes a minute or two, and the table is locked meanwhile.
set local maintenance_work_mem = '256MB';

-- Room on each page, so that a change of quantity stays on it and touches no index.
alter table products set (fillfactor = 90);

-- An index on quantity, or with it in its predicate, would be written by every reservation. This column changes only
-- when the last unit goes or the first one comes.
alter table products add column sold_out boolean not null generated always as (quantity = 0) stored;
create index products_sold_out_by_created on products (created_at, id) where sold_out and archived_at is null;
create index products_sold_out_by_price on products (price_cents, id) where sold_out and archived_at is null;
create index products_sold_out_by_name on products (name, id) where sold_out and archived_at is null;

-- Each sort within a category, and of a seller.
create index products_by_category_and_price on products (category, price_cents, id) where archived_at is null;
create index products_by_category_and_name on products (category, name, id) where archived_at is null;
create index products_by_seller_and_price on products (seller_id, price_cents, id) where archived_at is null;
create index products_by_seller_and_name on products (seller_id, name, id) where archived_at is null;

-- How many products have a word: without it, the planner takes every word for a rare one, and sorts half a million
-- products by price where the first 21 by price would do.
create statistics products_text on (name || ' ' || coalesce(description, '')) from products;
-- What is new waits in a list beside the index, which every search reads too: a short one. Without any, a new price
-- takes 10 ms instead of 4, since it writes the product's hundreds of entries again.
alter index products_by_text set (gin_pending_list_limit = 256);

-- Trigrams don't find what has no three letters in a row, such as "xl", "台灯" or "4K": these pieces of one and two
-- characters do. Dear, so that the planner never evaluates it row by row; small and capital as ilike takes them under "C".
create function letter_pairs(text) returns text[]
  language sql immutable strict parallel safe cost 10000
  return string_to_array(translate(lower($1 collate "C"), e'\x01', ' '), null)
    || string_to_array(regexp_replace(translate(lower($1 collate "C"), e'\x01', ' '), '(..)', e'\\1\x01', 'g'), e'\x01')
    || string_to_array(regexp_replace(substr(translate(lower($1 collate "C"), e'\x01', ' '), 2), '(..)', e'\\1\x01', 'g'), e'\x01');
create index products_by_letter_pairs on products
  using gin (letter_pairs(name || ' ' || coalesce(description, ''))) with (gin_pending_list_limit = 256) where archived_at is null;
-- How many products have a pair, likewise.
create statistics products_letter_pairs on (letter_pairs(name || ' ' || coalesce(description, ''))) from products;

analyze products;
