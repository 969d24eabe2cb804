-- The products that are sold out and not archived, for lists of them. They were found by partial indexes of products, so that each product that
-- sold out, or was available again, got a new entry in every index, also in those of its texts: 10 ms for the longest ones. One client could
-- thereby keep all orders waiting. Now a change of the stock changes nothing that products has an index on.
create table sold_out_products (
  product_id uuid primary key references products (id)
);

create function note_sold_out() returns trigger language plpgsql as $$
begin
  if new.sold_out and new.archived_at is null then
    insert into sold_out_products (product_id) values (new.id) on conflict do nothing;
  else
    delete from sold_out_products where product_id = new.id;
  end if;
  return null;
end $$;

create trigger note_new_sold_out after insert on products
  for each row when (new.sold_out) execute function note_sold_out();
create trigger note_sold_out after update on products
  for each row when ((old.sold_out and old.archived_at is null) is distinct from (new.sold_out and new.archived_at is null))
  execute function note_sold_out();

-- The triggers have locked the table against changes.
insert into sold_out_products (product_id) select id from products where sold_out and archived_at is null;

drop index products_sold_out_by_created, products_sold_out_by_price, products_sold_out_by_name;

-- Half of each new page stays free: one transaction can then change the stock of all products on a page without moving any to another page,
-- which would add entries to every index as well.
alter table products set (fillfactor = 50);
