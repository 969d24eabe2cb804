import { checkHistory } from "../history/check";
import type { Operation } from "../history/operation";
import type { Shop } from "../system/system";
import type { Load } from "./load";

const MAX_REPORTED = 20;

/**
 * Checks the clients' whole history since the load began. Checks nothing if a database was restored, since confirmed writes may then be lost.
 * @param isQuiet no outbox row is pending and the load has stopped: the current state is read first, which lets the checks balance the stock
 */
export async function checkClientHistory(shop: Shop, load: Load, isQuiet: boolean): Promise<string[]> {
  const { history, losses, readers } = load;
  if (losses.hasAny || history.operations === undefined) return [];
  if (isQuiet) {
    await recordForeignOrders(shop, load);
    const begin = performance.now();
    const known = settled(history.operations);
    const open = [...load.orders.values()].filter(({ id }) => id !== undefined && !known.has(id));
    await readers.readAll([...load.products.keys()], open);
    history.add({ kind: "quiet", begin, end: performance.now() });
  }
  return checkHistory(history.operations)
    .violations.slice(0, MAX_REPORTED)
    .map(({ check, message }) => `history: ${check}: ${message}`);
}

/** Orders that need no further read: final ones, and those CONFIRMED in an earlier quiet period without a cancel since. */
function settled(operations: readonly Operation[]): Set<string> {
  const statuses = new Map<string, string>();
  const quiet = new Set<string>();
  const isFinal = (id: string): boolean => ["REJECTED", "CANCELLED"].includes(statuses.get(id) ?? "");
  for (const operation of operations) {
    if (operation.kind === "quiet") for (const [id, status] of statuses) if (status === "CONFIRMED") quiet.add(id);
    if (operation.kind === "order.cancel") quiet.delete(operation.order);
    const seen = "seen" in operation ? operation.seen : undefined;
    // the response to POST /orders shows the order as it was created, even for a retry
    if (operation.kind !== "order.place" && seen !== undefined && "status" in seen && !isFinal(seen.id)) statuses.set(seen.id, seen.status);
  }
  return new Set([...statuses.keys()].filter((id) => isFinal(id) || quiet.has(id)));
}

/** Records orders that faults inserted by SQL: as stock adjustments of unknown outcome, at some time since the last quiet period. */
async function recordForeignOrders(shop: Shop, { history, orders, foreignUnits }: Load): Promise<void> {
  const held = await shop.sql<{ product: string; units: number }>(
    "orders",
    `select l.product_id as product, sum(l.quantity)::int as units from orders o join order_lines l on l.order_id = o.id
     where o.status = 'CONFIRMED' and o.idempotency_key <> all($1) group by l.product_id`,
    [[...orders.keys()]],
  );
  const begin = history.operations?.findLast(({ kind }) => kind === "quiet")?.end ?? 0;
  for (const { product, units } of held) {
    const delta = (foreignUnits.get(product) ?? 0) - units;
    foreignUnits.set(product, units);
    if (delta !== 0) history.add({ kind: "product.adjust", begin, outcome: "unknown", user: "", product, delta });
  }
}
