import type { Status } from "../../contracts/orders";
import type { Outcome } from "../../contracts/products";
import type { Database, Query } from "../../mixins/database";
import * as outbox from "../../mixins/outbox";
import { after, describeShortages, mismatch, RESERVATION_EVENTS, settledEvents } from "./order";
import { noteParked } from "./outbox.store";
import { CHANGED, type OrderRow } from "./row";

/** Locks an order until the transaction ends. Orders are locked by ascending id, and before their outbox rows. */
export async function lockOrder(query: Query, id: string): Promise<Pick<OrderRow, "user_id" | "status" | "version"> | undefined> {
  const [order] = await query<Pick<OrderRow, "user_id" | "status" | "version">>(
    "select user_id, status, version from orders where id = $1 for update",
    [id],
  );
  return order;
}

/** Writes a cancel and its outbox row. The caller has locked the order. */
export async function writeCancelled(query: Query, id: string): Promise<void> {
  await writeStates(query, new Map([[id, { status: "CANCELLED", reason: null }]]));
  await query(
    `insert into outbox (subject, user_id, weight, large, event, payload)
     select o.id, o.user_id, coalesce(created.weight, 1), coalesce(created.large, false), 'order.cancelled', '{}'
     from orders o left join outbox created on created.subject = o.id and created.event = 'order.created' where o.id = $1`,
    [id],
  );
}

interface Mismatch {
  order_id: string;
  message: string;
  isParked: boolean;
}

/**
 * Applies outcomes to their orders and settles the outbox rows that they reply to, in one transaction. A repeated outcome changes nothing.
 * One that does not match its order settles nothing, and parks the pending rows that it replies to.
 * @returns the orders whose status has changed; and those with a reply that did not match, with the reason and whether a row was parked
 */
export function settleOrders(db: Database, outcomes: readonly Outcome[]): Promise<{ changed: string[]; mismatches: Mismatch[] }> {
  return db.transaction(async (query) => {
    const ids = [...new Set(outcomes.map((outcome) => outcome.order_id))];
    const rows = await query<{ id: string; status: Status; lines_digest: string }>(
      "select id, status, lines_digest from orders where id = any($1) order by id for update",
      [ids],
    );
    const orders = new Map(rows.map((row) => [row.id, row]));
    const changed = new Map<string, Change>();
    const settled: { subject: string; events: readonly string[] }[] = [];
    const mismatches: { subject: string; message: string }[] = [];
    for (const outcome of outcomes) {
      const order = orders.get(outcome.order_id);
      if (order === undefined) continue; // unknown here
      const message = mismatch(order, outcome);
      if (message !== undefined) {
        mismatches.push({ subject: order.id, message });
        continue;
      }
      settled.push({ subject: order.id, events: settledEvents(outcome.outcome) });
      const status = after(order.status, outcome.outcome) ?? order.status; // never undefined: mismatches were skipped above
      if (status === order.status) continue;
      changed.set(order.id, { status, reason: outcome.outcome === "REJECTED" ? describeShortages(outcome.shortages) : null });
      order.status = status;
    }
    await writeStates(query, changed);
    await outbox.settle(query, settled);
    const parked = mismatches.length === 0 ? [] : await outbox.park(query, RESERVATION_EVENTS, mismatches);
    await noteParked(query, parked);
    const isParked = (id: string): boolean => parked.some(({ subject }) => subject === id);
    return {
      changed: [...changed.keys()],
      mismatches: mismatches.map(({ subject, message }) => ({ order_id: subject, message, isParked: isParked(subject) })),
    };
  });
}

interface Change {
  status: Status;
  reason: string | null;
}

/** Writes the new states of orders, and their history. The caller has locked the orders. */
async function writeStates(query: Query, changed: ReadonlyMap<string, Change>): Promise<void> {
  if (changed.size === 0) return;
  await query(
    `with changed as (
       update orders as o set status = x.status, reason = x.reason, ${CHANGED}
       from unnest($1::uuid[], $2::text[], $3::text[]) as x (id, status, reason) where o.id = x.id
       returning o.id, o.status, o.updated_at
     )
     insert into order_history (order_id, status, at) select id, status, updated_at from changed order by id`,
    [[...changed.keys()], [...changed.values()].map((c) => c.status), [...changed.values()].map((c) => c.reason)],
  );
}
