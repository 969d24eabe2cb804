import type { Shortage } from "../../contracts/contract";
import { digestOf } from "../../contracts/lines";
import type { CreatedOrder, Line } from "../../contracts/orders";
import type { Outcome } from "../../contracts/products";
import type { Database, Query } from "../../mixins/database";
import { processOnce, type Inbox } from "../../mixins/replier.mixin";
import { netChanges, release, reserve, type Shelf, type StockMovement } from "./stock";

interface Reservation {
  order_id: string;
  state: Outcome["outcome"];
  lines: Line[];
  shortages: Shortage[];
}

/*
 * Both transactions lock reservations by order id and then products by id, as all code here does: two batches with the same rows
 * wait for each other, but can't deadlock.
 */

/** An order's reservation is also the record that its event was processed, and of the outcome. */
const INBOX: Inbox<CreatedOrder, Outcome> = {
  subjectOf: ({ order_id }) => order_id,
  insert: (query, orders) => insertReservations(query, orders, "RESERVED"),
  read: async (query, orderIds) =>
    (await query<Reservation>("select order_id, state, lines, shortages from reservations where order_id = any($1)", [orderIds])).map(
      storedOutcome,
    ),
};

/** Reserves stock for orders. An order that was processed before gets its stored outcome. */
export function reserveStock(db: Database, orders: readonly CreatedOrder[]): Promise<Outcome[]> {
  return processOnce(db, INBOX, orders, async (query, fresh) => {
    const shelf = await lockShelf(
      query,
      fresh.flatMap((order) => order.lines.map((line) => line.product_id)),
    );
    const { outcomes, movements } = reserve(fresh, sellable(shelf));
    await writeMovements(query, movements);
    const rejected = outcomes.flatMap((o) => (o.outcome === "REJECTED" ? o : []));
    if (rejected.length > 0) {
      await query(
        `update reservations as r set state = 'REJECTED', shortages = x.shortages
         from unnest($1::uuid[], $2::jsonb[]) as x (order_id, shortages) where r.order_id = x.order_id`,
        [rejected.map((o) => o.order_id), rejected.map((o) => JSON.stringify(o.shortages))],
      );
    }
    return outcomes;
  });
}

/**
 * Releases the stock of cancelled orders. A cancel that overtakes its create leaves a tombstone, so that a late create reserves nothing.
 * @param maxLines of all orders together whose stock is released
 * @returns the outcomes of the first orders only, at least one, if the others have too many lines
 */
export function releaseStock(db: Database, orderIds: readonly string[], maxLines = Infinity): Promise<Outcome[]> {
  const requested = [...new Set(orderIds)];
  return db.transaction(async (query) => {
    await insertReservations(
      query,
      requested.map((order_id) => ({ order_id, lines: [] })),
      "RELEASED",
    );
    const found = await query<Reservation>(
      "select order_id, state, lines, shortages from reservations where order_id = any($1) order by order_id for update",
      [requested],
    );
    const taken = firstOf(requested, found, maxLines);
    const holding = taken.filter((r) => r.state === "RESERVED");
    if (holding.length === 0) return taken.map(storedOutcome);

    const shelf = await lockShelf(
      query,
      holding.flatMap((r) => r.lines.map((line) => line.product_id)),
    );
    const { outcomes, movements } = release(holding, new Map(shelf.map((row) => [row.id, row.quantity])));
    await writeMovements(query, movements);
    await query("update reservations set state = 'RELEASED', updated_at = now() where order_id = any($1)", [
      holding.map((r) => r.order_id),
    ]);
    return [...taken.filter((r) => r.state !== "RESERVED").map(storedOutcome), ...outcomes];
  });
}

/** The first of the requested reservations, at least one, whose lines to release are within the limit. */
function firstOf(orderIds: readonly string[], found: readonly Reservation[], maxLines: number): Reservation[] {
  const byId = new Map(found.map((reservation) => [reservation.order_id, reservation]));
  const taken: Reservation[] = [];
  let lines = 0;
  for (const id of orderIds) {
    const reservation = byId.get(id);
    if (reservation === undefined) throw new Error(`order ${id} has no reservation, although one was inserted`);
    if (reservation.state === "RESERVED") lines += reservation.lines.length;
    if (taken.length > 0 && lines > maxLines) break;
    taken.push(reservation);
  }
  return taken;
}

/** @returns the ids of the orders that had no reservation before */
async function insertReservations(
  query: Query,
  orders: readonly { order_id: string; lines: readonly Line[] }[],
  state: string,
): Promise<Set<string>> {
  const rows = await query<{ order_id: string }>(
    `insert into reservations (order_id, state, lines)
     select order_id, $3, lines from unnest($1::uuid[], $2::jsonb[]) as x (order_id, lines) order by order_id
     on conflict (order_id) do nothing
     returning order_id`,
    [orders.map((o) => o.order_id), orders.map((o) => JSON.stringify(o.lines)), state],
  );
  return new Set(rows.map((row) => row.order_id));
}

function storedOutcome({ order_id, state, lines, shortages }: Reservation): Outcome {
  const lines_digest = digestOf(lines);
  return state === "REJECTED" ? { order_id, outcome: state, lines_digest, shortages } : { order_id, outcome: state, lines_digest };
}

interface ShelfRow {
  id: string;
  quantity: number;
  archived: boolean;
}

const lockShelf = (query: Query, productIds: readonly string[]): Promise<ShelfRow[]> =>
  query<ShelfRow>("select id, quantity, archived_at is not null as archived from products where id = any($1) order by id for update", [
    [...new Set(productIds)],
  ]);

/** Archived products can no longer be sold, but their stock can be released. */
const sellable = (rows: readonly ShelfRow[]): Shelf => new Map(rows.flatMap((row) => (row.archived ? [] : [[row.id, row.quantity]])));

async function writeMovements(query: Query, movements: readonly StockMovement[]): Promise<void> {
  if (movements.length === 0) return;
  const changes = [...netChanges(movements)];
  await query(
    `with changed as (
       update products as p
       set quantity = p.quantity + c.delta, reserved = p.reserved - c.delta, version = p.version + 1, updated_at = now()
       from unnest($1::uuid[], $2::bigint[]) as c (id, delta) where p.id = c.id
     )
     insert into stock_movements (product_id, order_id, kind, delta, balance, reason)
     select product_id, order_id, kind, delta, balance, 'order ' || order_id || case kind when 'RESERVE' then ' reserved' else ' released' end
     from unnest($3::uuid[], $4::uuid[], $5::text[], $6::bigint[], $7::bigint[])
       with ordinality as m (product_id, order_id, kind, delta, balance, n)
     order by n`,
    [
      changes.map(([id]) => id),
      changes.map(([, delta]) => delta),
      movements.map((m) => m.product_id),
      movements.map((m) => m.order_id),
      movements.map((m) => m.kind),
      movements.map((m) => m.delta),
      movements.map((m) => m.balance),
    ],
  );
}
