import { testId } from "./ids";
import { sql } from "./sql";

export const PRODUCTS = 1_000;
export const PLENTY = 100_000_000;

/** Each occurs in the names of 20 products. */
export const WORDS = Array.from({ length: 50 }, (_, n) => `kind${String(n).padStart(2, "0")}`);

/** SQL for the `testId` of a number. */
export const idOf = (n: string): string => `('${testId(0).slice(0, -12)}' || lpad((${n})::text, 12, '0'))::uuid`;

/** A thousand products with ample stock, and the ledger entries for it, in the shop's schema. Ids: `testId` of 1 to 1,000. */
export async function seedProducts(url: string): Promise<void> {
  await sql(
    url,
    `with created as (
       insert into products (id, name, description, category, price_cents, quantity, seller_id)
       select ${idOf("n")}, 'Product ' || n || ' ' || ($2::text[])[1 + n % 50], 'A product that is seeded for measuring, number ' || n, 'bench', 100 + n, $3, ${idOf("1")}
       from generate_series(1, $1::int) as n
       returning id, quantity
     )
     insert into stock_movements (product_id, kind, delta, balance, reason)
     select id, 'INITIAL', quantity, quantity, 'initial stock' from created order by id`,
    [PRODUCTS, WORDS, PLENTY],
  );
  await sql(url, "vacuum analyze products");
}
