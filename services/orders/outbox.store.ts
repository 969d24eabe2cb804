import type { Refusal } from "../../contracts/products";
import type { Database, Query, Reader } from "../../mixins/database";
import { decodeCursor, encodeCursor, page } from "../../mixins/keyset";
import * as outbox from "../../mixins/outbox";
import { CHANGED } from "./row";

/** Counts refusals, and records in an order's reason that its outbox row is parked. @returns the parked rows */
export function refuseOrders(db: Database, refusals: readonly Refusal[]): Promise<outbox.Parked[]> {
  return db.transaction(async (query) => {
    const ids = [...new Set(refusals.map((refusal) => refusal.order_id))];
    await query("select id from orders where id = any($1) order by id for update", [ids]);
    const parked = await outbox.refuse(
      query,
      refusals.map(({ order_id, ...refusal }) => ({ subject: order_id, ...refusal })),
    );
    await noteParked(query, parked);
    return parked;
  });
}

/** Records in an order's reason that its outbox row is parked. The error itself is for operators and stays in the outbox. */
export async function noteParked(query: Query, parked: readonly outbox.Parked[]): Promise<void> {
  if (parked.length === 0) return;
  await query(
    `update orders as o set reason = 'parked: processing failed, manual intervention is required', ${CHANGED}
     where id = any($1) and status = 'PENDING'`,
    [parked.map(({ subject }) => subject)],
  );
}

/** Makes a parked row pending again and clears its order's reason. @returns whether it was parked; undefined if there is no such row */
export async function replayRow(query: Query, id: number): Promise<boolean | undefined> {
  // lock the order before its rows, as everywhere
  const [order] = await query<{ id: string }>("select id from orders where id = (select subject from outbox where id = $1) for update", [
    id,
  ]);
  if (order === undefined) return undefined;
  const revived = await outbox.revive(query, id);
  if (revived) await query(`update orders as o set reason = null, ${CHANGED} where id = $1 and status = 'PENDING'`, [order.id]);
  return revived;
}

/** One page of the outbox, oldest first. */
export async function listOutbox(db: Reader, states: readonly string[], limit: number, cursor: string | undefined) {
  const name = `outbox:${states.join()}`;
  const [after] = cursor === undefined ? [] : decodeCursor(name, cursor, ["number"]);
  const rows = await outbox.list(db, states, Number(after ?? 0), limit + 1);
  const present = ({ subject, ...row }: outbox.OutboxEntry) => ({
    ...row,
    order_id: subject,
    next_attempt_at: row.next_attempt_at.toISOString(),
    created_at: row.created_at.toISOString(),
  });
  return page(rows, limit, present, (last) => encodeCursor(name, [last.id]));
}
