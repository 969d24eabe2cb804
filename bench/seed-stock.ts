import { idOf, PLENTY, PRODUCTS, WORDS } from "../testkit/seed-products";
import { sql } from "../testkit/sql";

/** The same products in the table that moleculer-db creates from the model in stock.ts. */
export async function seedStock(url: string): Promise<void> {
  await sql(
    url,
    `insert into products (id, name, description, category, price_cents, quantity, seller_id, "createdAt", "updatedAt")
     select ${idOf("n")}, 'Product ' || n || ' ' || ($2::text[])[1 + n % 50], 'A product that is seeded for measuring, number ' || n, 'bench', 100 + n, $3, 1, now(), now()
     from generate_series(1, $1::int) as n`,
    [PRODUCTS, WORDS, PLENTY],
  );
  await sql(url, "vacuum analyze products");
}
