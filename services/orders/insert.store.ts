import { digestOf } from "../../contracts/lines";
import { SMALL_ORDER_LINES } from "../../contracts/orders";
import type { Database } from "../../mixins/database";
import { shareOf } from "../../mixins/fair-queue";
import type { OutboxMessage } from "../../mixins/outbox";
import type { InFlightCap } from "../../mixins/outbox.claim";
import type { OrderLine } from "./order";
import { initialState, type OrderRow } from "./row";

/** Identifies an order request: a retry with the same three values returns the same order. */
export interface OrderKey {
  user_id: string;
  idempotency_key: string;
  request_hash: string;
}

/** An order to be inserted. */
export interface Draft extends OrderKey {
  total_cents: number;
  lines: OrderLine[];
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
): Promise<{ orders: (OrderRow | undefined)[]; claimed: OutboxMessage[] }> {
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
       insert into outbox (subject, user_id, weight, large, event, payload, attempts, emitted_at, next_attempt_at)
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
export const isLarge = ({ lines }: Pick<Draft, "lines">): boolean => lines.length > SMALL_ORDER_LINES;

export const createdMessage = ({ id, user_id, lines }: OrderRow): OutboxMessage => ({
  subject: id,
  user_id,
  event: "order.created",
  payload: { lines: lines.map(({ product_id, quantity }) => ({ product_id, quantity })) },
});

const newOrder = (draft: Draft, id: string, created_at: Date): OrderRow => ({ ...draft, id, created_at, ...initialState(created_at) });
