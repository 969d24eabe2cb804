import { PAGE_BYTES, type Params } from "../../contracts/contract";
import { LINES_PER_READ, type getMany, type Order, type Status } from "../../contracts/orders";
import type { Database, Query, Reader } from "../../mixins/database";
import { decodeCursor, encodeCursor, page, timeOf, within } from "../../mixins/keyset";
import type { OrderKey } from "./insert.store";
import { present, type OrderRow } from "./row";

const SELECT = `
  select o.id, o.user_id, o.request_hash, o.status, o.total_cents, o.reason, o.version, o.created_at, o.updated_at,
    (select json_agg(json_build_object('product_id', l.product_id, 'name', l.name, 'unit_price_cents', l.unit_price_cents, 'quantity', l.quantity)
       order by l.product_id) from order_lines l where l.order_id = o.id) as lines,
    (select json_agg(json_build_object('status', h.status, 'at', h.at) order by h.id) from order_history h where h.order_id = o.id) as history
  from orders o`;

const ROW = ["id", "user_id", "request_hash", "status", "total_cents", "reason", "version", "created_at", "updated_at", "lines", "history"];
const COLUMNS = ROW.join(", ");
/** PostgreSQL's JSON of the lines has spaces and longer column names: half of its length is always less than that of the response's JSON. */
const LINES_BYTES = "(coalesce(octet_length(lines::text), 0) / 2)";

/** The order created with a key; undefined if the request had another body. */
export interface Keyed {
  order: OrderRow | undefined;
}

/**
 * The orders created with these keys; undefined for keys without an order. An order whose request had another body is not read: it may be
 * much larger than the request that now has its key.
 */
export async function findByKeys(db: Database, keys: readonly OrderKey[]): Promise<(Keyed | undefined)[]> {
  const rows = await db.query<(OrderRow | { id: null }) & { n: number }>(
    `select k.n, ${ROW.map((column) => `same.${column}`).join()} from unnest($1::uuid[], $2::text[], $3::text[]) with ordinality as k (user_id, idempotency_key, request_hash, n)
     join orders made on made.user_id = k.user_id and made.idempotency_key = k.idempotency_key
     left join lateral (${SELECT} where o.id = made.id and o.request_hash = k.request_hash) as same on true`,
    [keys.map((k) => k.user_id), keys.map((k) => k.idempotency_key), keys.map((k) => k.request_hash)],
  );
  const found = new Map(rows.map(({ n, ...row }): [number, Keyed] => [n, { order: row.id === null ? undefined : row }]));
  return keys.map((_, i) => found.get(i + 1));
}

/** @returns those that exist, in no particular order */
export const findOrders = (query: Query, ids: readonly string[]): Promise<OrderRow[]> =>
  query<OrderRow>(`${SELECT} where o.id = any($1)`, [ids]);

/**
 * The requested orders, each for its own user; null for an order that this user may not see. Ends with the order that reaches
 * LINES_PER_READ lines. Lines are counted first, so that no JSON is built for the orders after it.
 */
export async function findSeen(db: Database, requested: Params<typeof getMany>["orders"]): Promise<(OrderRow | null)[]> {
  const rows = await db.query<OrderRow | { id: null }>(
    `select ${ROW.map((column) => `found.${column}`).join()} from (
       select requested.n, o.id, sum(l.count) over (order by requested.n rows unbounded preceding) - l.count as lines_before
       from unnest($1::uuid[], $2::uuid[], $3::text[]) with ordinality as requested (order_id, user_id, role, n)
       left join orders o on o.id = requested.order_id and (o.user_id = requested.user_id or requested.role = 'admin')
       cross join lateral (select count(*) from order_lines where order_id = o.id) as l
     ) as seen
     left join lateral (${SELECT} where o.id = seen.id) as found on true
     where lines_before < $4 order by seen.n`,
    [requested.map(({ id }) => id), requested.map(({ user_id }) => user_id), requested.map(({ role }) => role), LINES_PER_READ],
  );
  return rows.map((row) => (row.id === null ? null : row));
}

interface ListFilter {
  userId: string | undefined;
  status: Status | undefined;
  limit: number;
  cursor: string | undefined;
}

/**
 * One page of orders, newest first. Filters are written as a range and lead the sort order, so that only the index that begins with those
 * columns provides it. Otherwise the planner might scan the orders of all users, newest first.
 */
export async function listOrders(
  db: Reader,
  { userId, status, limit, cursor }: ListFilter,
): Promise<{ items: Order[]; next_cursor: string | null }> {
  const before = cursor === undefined ? undefined : decodeCursor("orders", cursor, ["time", "id"]);
  const values: unknown[] = [];
  const bind = (value: unknown): string => `$${values.push(value)}`;
  const common: [string, string][] = [];
  if (userId !== undefined) common.push(["o.user_id", bind(userId)]);
  if (status !== undefined) common.push(["o.status", bind(status)]);
  const [columns, bounds] = [common.map(([column]) => column), common.map(([, bound]) => bound)];
  const where = ["true"];
  if (common.length > 0) where.push(...[">=", "<="].map((sign) => `(${columns.join()}) ${sign} (${bounds.join()})`));
  const keys = [...columns, "o.created_at", "o.id"];
  if (before !== undefined) {
    const [time, id] = before;
    where.push(`(${keys.join()}) < (${[...bounds, timeOf(bind(time)), `${bind(id)}::uuid`].join()})`);
  }
  const order = keys.map((column) => `${column} desc`).join();
  const select = `${SELECT} where ${where.join(" and ")} order by ${order} limit ${bind(limit + 1)}`;
  const rows = await db.adhoc<OrderRow>(
    within(PAGE_BYTES, { columns: COLUMNS, select, order: order.replaceAll("o.", ""), bytes: LINES_BYTES, rows: limit }),
    values,
  );
  return page(rows, limit, present, (last) => encodeCursor("orders", [last.created_at.getTime(), last.id]));
}
