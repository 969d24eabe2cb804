-- ANALYZE, which autovacuum runs after each tenth of the products has changed, evaluated name_sort_key, letter_pairs and the searched text for
-- 30,000 products: 5 s of a core, and minutes for names made to be slow. No plan needs to know how these values are distributed any longer:
-- a search scans the first products of its list, and then finds all matches by the index of the text.
drop statistics products_text, products_letter_pairs;
alter index products_by_text alter column 1 set statistics 0;
alter index products_by_letter_pairs alter column 1 set statistics 0;
alter index products_by_name_key alter column 1 set statistics 0;
alter index products_by_category_and_name_key alter column 2 set statistics 0;
alter index products_by_seller_and_name_key alter column 2 set statistics 0;
