import { PAGE_BYTES, type Params } from "../../contracts/contract";
import { digestOf } from "../../contracts/lines";
import { fromCents } from "../../contracts/money";
import { LINES_PER_CALL, SMALL_ORDER, type getMany, type Order, type Status } from "../../contracts/orders";
import type { Outcome, Refusal } from "../../contracts/products";
import type { Database, Query, Reader } from "../../mixins/database";
import { shareOf } from "../../mixins/fair-queue";
import { decodeCursor, encodeCursor, page, timeOf, within } from "../../mixins/keyset";
import * as outbox from "../../mixins/outbox";
import type { InFlightCap } from "../../mixins/outbox.claim";
import { repliedEvent, describeShortages, misfit, settle, type OrderLine } from "./order";

/** An order to be inserted. */
export interface Draft {
  user_id: string;
  idempotency_key: string;
  request_hash: string;
  total_cents: number;
  lines: OrderLine[];
}

export interface OrderRow {
  id: string;
  user_id: string;
  request_hash: string;
  status: Status;
  total_cents: number;
  reason: string | null;
  version: number;
  created_at: Date;
  updated_at: Date;
  lines: OrderLine[];
  history: { status: Status; at: string }[];
}

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

export function present(row: OrderRow): Order {
  return {
    id: row.id,
    user_id: row.user_id,
    status: row.status,
    total_price: fromCents(row.total_cents),
    items: row.lines.map((line) => ({
      product_id: line.product_id,
      name: line.name,
      unit_price: fromCents(line.unit_price_cents),
      quantity: line.quantity,
    })),
    reason: row.reason,
    history: row.history.map(({ status, at }) => ({ status, at: new Date(at).toISOString() })),
    created_at: row.created_at.toISOString(),
    updated_at: row.updated_at.toISOString(),
    version: row.version,
  };
}

/** An order as the first response showed it, whatever its status is now: the response to a repeated request. */
export function presentAsCreated(row: OrderRow): Order {
  return present({
    ...row,
    status: "PENDING",
    reason: null,
    version: 1,
    updated_at: row.created_at,
    history: [{ status: "PENDING", at: row.created_at.toISOString() }],
  });
}

/**
 * Writes orders with their lines, history and outbox rows, in one statement and so atomically. Rows are inserted sorted by key: two batches
 * with the same keys can't deadlock. Outbox rows are claimed as they are written, as far as the in-flight cap allows; the caller publishes
 * them, which saves a second write of each. None is claimed while older ones are unclaimed, since those go first. If the cap does not allow
 * all, every user's first comes before anyone's second. Rows in flight are counted as by the relay (mixins/outbox.claim.ts).
 * @returns for each draft its order, or undefined if its key is taken, possibly by another draft of the batch; and the claimed rows
 */
export async function insertOrders(
  db: Database,
  drafts: readonly Draft[],
  { maxInFlight, retryMs, windowMs }: InFlightCap,
): Promise<{ orders: (OrderRow | undefined)[]; claimed: outbox.OutboxMessage[] }> {
  // If a key came twice in one statement, `on conflict do nothing` would drop the duplicate and the join below would bring it back.
  const firsts = [
    ...new Map(drafts.toReversed().map((draft) => [`${draft.user_id} ${draft.idempotency_key}`, draft])).values(),
  ].toReversed();
  const rows = await db.query<{ id: string; n: number; created_at: Date; claimed: boolean }>(
    `with flights as (
       ${IN_FLIGHT}
     ), cap as (
       select large, case when waits then 0 else $6 - coalesce((select sum(n) from flights where flights.large = kind.large), 0) end as n
       from (values
         (false, exists (select from outbox where state = 'PENDING' and attempts < 1 and event = 'order.created' and not large)),
         (true, exists (select from outbox where state = 'PENDING' and attempts < 1 and event = 'order.created' and large))
       ) as kind (large, waits)
     ), input as (
       select user_id, key, hash, total, lines, weight, large, digest, n
       from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::jsonb[], $9::int[], $10::boolean[], $11::text[])
         with ordinality as i (user_id, key, hash, total, lines, weight, large, digest, n)
     ), created as (
       insert into orders (user_id, idempotency_key, request_hash, lines_digest, total_cents)
       select user_id, key, hash, digest, total from input order by user_id, key
       on conflict (user_id, idempotency_key) do nothing
       returning id, user_id, idempotency_key, created_at
     ), ranked as (
       select c.id, c.user_id, c.created_at, i.lines, i.weight, i.large, i.n, row_number() over mine as nth,
         coalesce(f.n, 0) + sum(i.weight) over mine - i.weight < $8 as is_of_share
       from created c join input i on (i.user_id, i.key) = (c.user_id, c.idempotency_key)
       left join flights f on (f.user_id, f.large) = (c.user_id, i.large)
       window mine as (partition by c.user_id, i.large order by i.n)
     ), placed as (
       select r.id, r.user_id, r.created_at, r.lines, r.weight, r.large, r.n,
         is_of_share and sum(weight) over (partition by r.large order by not is_of_share, nth, r.n) - weight < cap.n as claimed
       from ranked r join cap on cap.large = r.large
     ), lines as (
       insert into order_lines (order_id, product_id, name, unit_price_cents, quantity)
       select p.id, l.product_id, l.name, l.unit_price_cents, l.quantity
       from placed p cross join jsonb_to_recordset(p.lines) as l (product_id uuid, name text, unit_price_cents bigint, quantity bigint)
     ), history as (
       insert into order_history (order_id, status, at) select id, 'PENDING', created_at from placed
     ), messages as (
       insert into outbox (order_id, user_id, weight, large, event, payload, attempts, emitted_at, next_attempt_at)
       select p.id, p.user_id, p.weight, p.large, 'order.created', jsonb_build_object('lines',
         (select jsonb_agg(jsonb_build_object('product_id', l -> 'product_id', 'quantity', l -> 'quantity')) from jsonb_array_elements(p.lines) as l)),
         p.claimed::int, case when p.claimed then now() end, case when p.claimed then now() + make_interval(secs => $7 / 1000.0) else now() end
       from placed p order by p.n
     )
     select id, n, created_at, claimed from placed`,
    [
      firsts.map((d) => d.user_id),
      firsts.map((d) => d.idempotency_key),
      firsts.map((d) => d.request_hash),
      firsts.map((d) => d.total_cents),
      firsts.map((d) => JSON.stringify(d.lines)),
      maxInFlight,
      retryMs,
      shareOf(maxInFlight),
      firsts.map((d) => weightOf(d)),
      firsts.map((d) => isLarge(d)),
      firsts.map((d) => digestOf(d.lines)),
      windowMs,
    ],
  );
  const placed = new Map(rows.map((row) => [firsts[row.n - 1], row]));
  const orders = drafts.map((draft) => {
    const row = placed.get(draft);
    return row && newOrder(draft, row.id, row.created_at);
  });
  const claimed = orders.flatMap((order, i) => (order && placed.get(drafts[i])?.claimed ? createdMessage(order) : []));
  return { orders, claimed };
}

/** A select for small and one for large orders, since the index begins with that column. */
const IN_FLIGHT = [false, true]
  .map(
    (large) => `
       select user_id, large, sum(weight) as n from outbox
       where state = 'PENDING' and event = 'order.created' and large = ${large} and next_attempt_at > now()
         and emitted_at > now() - $12 * interval '1 ms' and emitted_at <= now() + $12 * interval '1 ms'
       group by user_id, large`,
  )
  .join(" union all ");

/** How much of the in-flight cap an order takes: stock is reserved line by line. */
export const weightOf = ({ lines }: Pick<Draft, "lines">): number => Math.max(1, Math.ceil(lines.length / LINES_PER_UNIT));
const LINES_PER_UNIT = 4;

/** Whether its outbox rows belong to the queues of large orders. */
export const isLarge = ({ lines }: Pick<Draft, "lines">): boolean => lines.length > SMALL_ORDER;

export const createdMessage = ({ id, user_id, lines }: OrderRow): outbox.OutboxMessage => ({
  order_id: id,
  user_id,
  event: "order.created",
  payload: { lines: lines.map(({ product_id, quantity }) => ({ product_id, quantity })) },
});

const newOrder = (draft: Draft, id: string, created_at: Date): OrderRow => ({
  ...draft,
  id,
  status: "PENDING",
  reason: null,
  version: 1,
  created_at,
  updated_at: created_at,
  history: [{ status: "PENDING", at: created_at.toISOString() }],
});

/** The order created with a key; undefined if the request had another body. */
export interface Keyed {
  order: OrderRow | undefined;
}

/**
 * The orders created with these keys; undefined for keys without an order. An order from another body is not read: it may be much larger
 * than the request that now has its key.
 */
export async function findByKeys(
  db: Database,
  keys: readonly { user_id: string; idempotency_key: string; request_hash: string }[],
): Promise<(Keyed | undefined)[]> {
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
 * LINES_PER_CALL lines. Lines are counted first, so that no JSON is built for the orders behind it.
 */
export async function findSeen(db: Database, requested: Params<typeof getMany>["orders"]): Promise<(OrderRow | null)[]> {
  const rows = await db.query<OrderRow | { id: null }>(
    `select ${ROW.map((column) => `found.${column}`).join()} from (
       select asked.n, o.id, sum(l.count) over (order by asked.n rows unbounded preceding) - l.count as lines_before
       from unnest($1::uuid[], $2::uuid[], $3::text[]) with ordinality as asked (order_id, user_id, role, n)
       left join orders o on o.id = asked.order_id and (o.user_id = asked.user_id or asked.role = 'admin')
       cross join lateral (select count(*) from order_lines where order_id = o.id) as l
     ) as seen
     left join lateral (${SELECT} where o.id = seen.id) as found on true
     where lines_before < $4 order by seen.n`,
    [requested.map(({ id }) => id), requested.map(({ user_id }) => user_id), requested.map(({ role }) => role), LINES_PER_CALL],
  );
  return rows.map((row) => (row.id === null ? null : row));
}

export interface ListFilter {
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

/** Locks an order until the transaction ends. Orders are locked by ascending id, and before their outbox rows. */
export async function lockOrder(query: Query, id: string): Promise<Pick<OrderRow, "user_id" | "status" | "version"> | undefined> {
  return (
    await query<Pick<OrderRow, "user_id" | "status" | "version">>("select user_id, status, version from orders where id = $1 for update", [
      id,
    ])
  )[0];
}

/*
 * The time of a change is that of the clock, not of the transaction: a transaction that began earlier may lock the order
 * later. And it never runs backwards, even if the clock does.
 */

/** Writes a cancel and its outbox row. The caller has locked the order. */
export async function writeCancelled(query: Query, id: string): Promise<void> {
  await query(
    `with changed as (
       update orders set status = 'CANCELLED', reason = null, version = version + 1, updated_at = greatest(clock_timestamp(), updated_at) where id = $1 returning id, user_id, updated_at
     ), history as (
       insert into order_history (order_id, status, at) select id, 'CANCELLED', updated_at from changed
     )
     insert into outbox (order_id, user_id, weight, large, event, payload)
     select c.id, c.user_id, coalesce(created.weight, 1), coalesce(created.large, false), 'order.cancelled', '{}'
     from changed c left join outbox created on created.order_id = c.id and created.event = 'order.created'`,
    [id],
  );
}

/**
 * Applies outcomes to their orders and settles the outbox rows that they reply to, in one transaction. A repeated outcome changes nothing.
 * One that does not fit its order settles nothing, and parks the order's pending rows.
 * @returns the orders whose status has changed; and those with a reply that did not fit, with the reason and whether a row was parked
 */
export function settleOrders(db: Database, outcomes: readonly Outcome[]): Promise<{ changed: string[]; misfits: Misfit[] }> {
  return db.transaction(async (query) => {
    const ids = [...new Set(outcomes.map((outcome) => outcome.order_id))];
    const rows = await query<{ id: string; status: Status; lines_digest: string }>(
      "select id, status, lines_digest from orders where id = any($1) order by id for update",
      [ids],
    );
    const orders = new Map(rows.map((row) => [row.id, row]));
    const changed = new Map<string, { status: Status; reason: string | null }>();
    const fitting: Outcome[] = [];
    const misfits: { order_id: string; message: string }[] = [];
    for (const outcome of outcomes) {
      const order = orders.get(outcome.order_id);
      if (order === undefined) continue; // unknown here
      const message = misfit(order, outcome);
      if (message !== undefined) {
        misfits.push({ order_id: order.id, message });
        continue;
      }
      fitting.push(outcome);
      const status = settle(order.status, outcome.outcome);
      if (status === order.status) continue;
      changed.set(order.id, { status, reason: outcome.outcome === "REJECTED" ? describeShortages(outcome.shortages) : null });
      order.status = status;
    }
    await writeStates(query, changed);
    await outbox.settle(
      query,
      fitting.map(({ order_id, outcome }) => ({ order_id, event: repliedEvent(outcome) })),
    );
    const parked = misfits.length === 0 ? [] : await outbox.park(query, misfits);
    await writeParked(query, parked);
    const isParked = (id: string): boolean => parked.some(({ order_id }) => order_id === id);
    return { changed: [...changed.keys()], misfits: misfits.map((one) => ({ ...one, isParked: isParked(one.order_id) })) };
  });
}

interface Misfit {
  order_id: string;
  message: string;
  isParked: boolean;
}

/** Makes a parked row pending again and clears its order's reason. @returns whether it was parked; undefined if there is no such row */
export function replayRow(db: Database, id: number): Promise<boolean | undefined> {
  return db.transaction(async (query) => {
    // lock the order before its rows, as everywhere
    const [order] = await query<{ id: string }>("select id from orders where id = (select order_id from outbox where id = $1) for update", [
      id,
    ]);
    if (order === undefined) return undefined;
    const revived = await outbox.revive(query, id);
    if (revived)
      await query(
        "update orders set reason = null, version = version + 1, updated_at = greatest(clock_timestamp(), updated_at) where id = $1 and status = 'PENDING'",
        [order.id],
      );
    return revived;
  });
}

/** One page of the outbox, oldest first. */
export async function listOutbox(db: Reader, states: readonly string[], limit: number, cursor: string | undefined) {
  const name = `outbox:${states.join()}`;
  const [after] = cursor === undefined ? [] : decodeCursor(name, cursor, ["number"]);
  const rows = await outbox.list(db, states, Number(after ?? 0), limit + 1);
  const present = (row: outbox.OutboxEntry) => ({
    ...row,
    next_attempt_at: row.next_attempt_at.toISOString(),
    created_at: row.created_at.toISOString(),
  });
  return page(rows, limit, present, (last) => encodeCursor(name, [last.id]));
}

/** Counts refusals. @returns the parked rows */
export function refuseOrders(db: Database, refusals: readonly Refusal[]): Promise<outbox.Parked[]> {
  return db.transaction(async (query) => {
    const ids = [...new Set(refusals.map((refusal) => refusal.order_id))];
    await query("select id from orders where id = any($1) order by id for update", [ids]);
    const parked = await outbox.refuse(query, refusals);
    await writeParked(query, parked);
    return parked;
  });
}

/** Notes in an order's reason that its message is parked. The error itself is for operators and stays in the outbox. */
async function writeParked(query: Query, parked: readonly outbox.Parked[]): Promise<void> {
  if (parked.length === 0) return;
  await query(
    `update orders set reason = 'parked: it could not be processed and waits for an operator', version = version + 1, updated_at = greatest(clock_timestamp(), updated_at)
     where id = any($1) and status = 'PENDING'`,
    [parked.map((row) => row.order_id)],
  );
}

async function writeStates(query: Query, changed: ReadonlyMap<string, { status: Status; reason: string | null }>): Promise<void> {
  if (changed.size === 0) return;
  await query(
    `with changed as (
       update orders as o set status = x.status, reason = x.reason, version = o.version + 1, updated_at = greatest(clock_timestamp(), updated_at)
       from unnest($1::uuid[], $2::text[], $3::text[]) as x (id, status, reason) where o.id = x.id
       returning o.id, o.status, o.updated_at
     )
     insert into order_history (order_id, status, at) select id, status, updated_at from changed order by id`,
    [[...changed.keys()], [...changed.values()].map((c) => c.status), [...changed.values()].map((c) => c.reason)],
  );
}
