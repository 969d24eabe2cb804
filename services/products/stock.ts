import type { Shortage } from "../../contracts/contract";
import { digestOf } from "../../contracts/lines";
import type { CreatedOrder, Line } from "../../contracts/orders";
import type { Outcome } from "../../contracts/products";

/** Units available for sale, by product id; unknown and archived products are absent. */
export type Shelf = ReadonlyMap<string, number>;

/** One entry of the ledger. */
export interface StockMovement {
  order_id: string;
  product_id: string;
  kind: "RESERVE" | "RELEASE";
  delta: number;
  balance: number;
}

interface Decision {
  outcomes: Outcome[];
  movements: StockMovement[];
}

/**
 * Decides which orders get stock: in the order given, each all of its lines or none. The shelf never goes below zero, and units taken by
 * one order are not available to the next.
 */
export function reserve(orders: readonly CreatedOrder[], shelf: Shelf): Decision {
  const left = new Map(shelf);
  const outcomes: Outcome[] = [];
  const movements: StockMovement[] = [];
  for (const { order_id, lines } of orders) {
    const shortages = lines.flatMap((line) => shortage(line, left));
    const lines_digest = digestOf(lines);
    if (shortages.length > 0) {
      outcomes.push({ order_id, outcome: "REJECTED", lines_digest, shortages });
      continue;
    }
    for (const line of lines) movements.push(move(left, order_id, "RESERVE", line.product_id, -line.quantity));
    outcomes.push({ order_id, outcome: "RESERVED", lines_digest });
  }
  return { outcomes, movements };
}

/** Releases what these orders hold. */
export function release(orders: readonly { order_id: string; lines: readonly Line[] }[], shelf: Shelf): Decision {
  const left = new Map(shelf);
  const movements = orders.flatMap(({ order_id, lines }) =>
    lines.map((line) => move(left, order_id, "RELEASE", line.product_id, line.quantity)),
  );
  return {
    outcomes: orders.map(({ order_id, lines }) => ({ order_id, outcome: "RELEASED", lines_digest: digestOf(lines) })),
    movements,
  };
}

/** The total change of each product. */
export function netChanges(movements: readonly StockMovement[]): Map<string, number> {
  const changes = new Map<string, number>();
  for (const { product_id, delta } of movements) changes.set(product_id, (changes.get(product_id) ?? 0) + delta);
  return changes;
}

function shortage(line: Line, left: Shelf): Shortage[] {
  const available = left.get(line.product_id) ?? null;
  return available === null || available < line.quantity ? [{ product_id: line.product_id, wanted: line.quantity, available }] : [];
}

function move(left: Map<string, number>, order_id: string, kind: StockMovement["kind"], product_id: string, delta: number): StockMovement {
  const balance = (left.get(product_id) ?? 0) + delta;
  left.set(product_id, balance);
  return { order_id, product_id, kind, delta, balance };
}
