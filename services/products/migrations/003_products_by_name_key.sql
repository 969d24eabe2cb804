-- Indexes on the key itself, not on a column that stores it: a generated column would rewrite the table and all its indexes under an
-- exclusive lock, and a trigger would need an update of every row. So nothing is filled in, and nodes of 0.2.0 maintain the key as well.
--
-- Reads continue while these are built, but writes to products wait. Operators of large catalogues therefore create them before the
-- upgrade, with "concurrently": docs/operations.md, "To 0.3.0". The next release drops products_by_name, products_by_category_and_name
-- and products_by_seller_and_name, by which nodes of 0.2.0 still sort.
create index if not exists products_by_name_key on products (name_sort_key(name), name, id) where archived_at is null;
create index if not exists products_by_category_and_name_key on products (category, name_sort_key(name), name, id) where archived_at is null;
create index if not exists products_by_seller_and_name_key on products (seller_id, name_sort_key(name), name, id) where archived_at is null;
