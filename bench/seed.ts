import { sql } from "../test/chaos/system";

export const PRODUCTS = 1_000;
const PLENTY = 100_000_000;

/** Each stands in the names of 20 products. */
export const WORDS = Array.from({ length: 50 }, (_, n) => `kind${String(n).padStart(2, "0")}`);

/** A thousand products with plenty of stock, ids 1 to 1,000, in our schema: the ledger agrees. */
export async function seedProducts(url: string): Promise<void> {
  await sql(
    url,
    `with created as (
       insert into products (name, description, category, price_cents, quantity, seller_id)
       select 'Product ' || n || ' ' || ($2::text[])[1 + n % 50], 'A product that is seeded for measuring, number ' || n, 'bench', 100 + n, $3, 1
       from generate_series(1, $1::int) as n
       returning id, quantity
     )
     insert into stock_movements (product_id, kind, delta, balance, reason)
     select id, 'INITIAL', quantity, quantity, 'initial stock' from created order by id`,
    [PRODUCTS, WORDS, PLENTY],
  );
  await sql(url, "vacuum analyze products");
}

/** The same in the table that moleculer-db has made from stock.ts's model. */
export async function seedStock(url: string): Promise<void> {
  await sql(
    url,
    `insert into products (name, description, category, price_cents, quantity, seller_id, "createdAt", "updatedAt")
     select 'Product ' || n || ' ' || ($2::text[])[1 + n % 50], 'A product that is seeded for measuring, number ' || n, 'bench', 100 + n, $3, 1, now(), now()
     from generate_series(1, $1::int) as n`,
    [PRODUCTS, WORDS, PLENTY],
  );
  await sql(url, "vacuum analyze products");
}
