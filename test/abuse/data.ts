import type { AttackContext, Prepared } from "./attack";

/** Three bytes in UTF-8: the most bytes per character that text without control characters takes in JSON. */
const IDEOGRAPH = "chr(20000 + n % 5000)";

interface Products {
  seller: string;
  count: number;
  /** SQL over `n`. */
  name: string;
  description: string;
  category?: string;
  sku?: string;
  quantity?: number;
}

/** Inserts products with the first movement of their ledger. @returns their ids */
export async function insertProducts({ shop }: AttackContext, products: Products): Promise<string[]> {
  const { seller, count, name, description, category = "null", sku = "null", quantity = 10 } = products;
  const rows = await shop.sql<{ id: string }>(
    "products",
    `with created as (
       insert into products (name, description, category, sku, price_cents, quantity, seller_id)
       select ${name}, ${description}, ${category}, ${sku}, 100000 + n, $1, $2 from generate_series(1, $3::int) as n
       returning id, quantity
     ), ledger as (
       insert into stock_movements (product_id, kind, delta, balance, reason)
       select id, 'INITIAL', quantity, quantity, 'initial stock' from created
     )
     select id from created`,
    [quantity, seller, count],
  );
  return rows.map(({ id }) => id);
}

/** Inserts products with all texts at their maximum length. */
export const insertBigProducts = (context: AttackContext, seller: string): Promise<string[]> =>
  insertProducts(context, {
    seller,
    count: 100,
    name: `repeat(${IDEOGRAPH}, 200)`,
    description: `repeat(${IDEOGRAPH}, 5000)`,
    category: `repeat(${IDEOGRAPH}, 100)`,
    sku: `repeat(${IDEOGRAPH}, 64)`,
  });

/** Prepares a seller with products of the largest pages. */
export async function bigCatalogue(context: AttackContext): Promise<Prepared> {
  const seller = context.accounts.attackers[0]?.id ?? "";
  await insertBigProducts(context, seller);
  return { seller: [seller] };
}

/** Inserts cancelled orders of a hundred lines with long names, the largest possible. They pass the audit. */
export async function insertLongOrders({ shop }: AttackContext, user: string, count: number): Promise<string[]> {
  const rows = await shop.sql<{ id: string }>(
    "orders",
    `with made as (
       insert into orders (user_id, idempotency_key, request_hash, lines_digest, status, total_cents)
       select $1, 'long ' || gen_random_uuid(), 'inserted', 'inserted', 'CANCELLED', 100 * 100 from generate_series(1, $2::int) as n
       returning id
     ), lines as (
       insert into order_lines (order_id, product_id, name, unit_price_cents, quantity)
       select id, new_id(), repeat(${IDEOGRAPH}, 200), 100, 1 from made, generate_series(1, 100) as n
     ), history as (
       insert into order_history (order_id, status)
       select id, status from made, unnest(array['PENDING', 'CANCELLED']) with ordinality as s (status, place) order by id, place
     )
     select id from made`,
    [user, count],
  );
  return rows.map(({ id }) => id);
}
