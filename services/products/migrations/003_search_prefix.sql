-- Search reads the first 300 characters of name and description, in small letters. Whole descriptions let one client make
-- searches of seconds (repetitive text is compared again and again at each position) and writes that add thousands of
-- index entries each. `like` compares five times as fast as `ilike`. Where a million products are there already, this
-- takes a minute or two, and the table is locked meanwhile. Nodes of the version before search slowly until they are gone.
set local maintenance_work_mem = '256MB';

drop index products_by_text;
drop index products_by_letter_pairs;
drop statistics products_text;
drop statistics products_letter_pairs;

-- fastupdate is off: with a pending list, whoever comes when it is full writes everybody's entries.
create index products_by_text on products
  using gin (lower(left(name || ' ' || coalesce(left(description, 300), ''), 300)) gin_trgm_ops) with (fastupdate = off) where archived_at is null;
create index products_by_letter_pairs on products
  using gin (letter_pairs(lower(left(name || ' ' || coalesce(left(description, 300), ''), 300)))) with (fastupdate = off) where archived_at is null;
create statistics products_text on (lower(left(name || ' ' || coalesce(left(description, 300), ''), 300))) from products;
create statistics products_letter_pairs on (letter_pairs(lower(left(name || ' ' || coalesce(left(description, 300), ''), 300)))) from products;

analyze products;
