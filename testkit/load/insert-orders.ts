import { digestOf } from "../../contracts/lines";
import type { Shop } from "../system/system";

/** Inserts orders of eight users by SQL, bypassing the API. @param payload of their outbox rows @returns the ids of these rows */
export const insertOrders = (shop: Shop, count: number, product: string, payload: unknown): Promise<{ id: string }[]> =>
  shop.sql(
    "orders",
    `with o as (
       insert into orders (user_id, idempotency_key, request_hash, lines_digest, total_cents)
       select md5((n % 8)::text)::uuid, gen_random_uuid()::text, 'chaos', $4, 100 from generate_series(1, $1) as n returning id, user_id
     ), l as (insert into order_lines select id, $2, 'Lamp', 100, 1 from o),
     h as (insert into order_history (order_id, status) select id, 'PENDING' from o)
     insert into outbox (subject, user_id, event, payload) select id, user_id, 'order.created', $3 from o returning id`,
    [count, product, JSON.stringify(payload), digestOf([{ product_id: product, quantity: 1 }])],
  );
