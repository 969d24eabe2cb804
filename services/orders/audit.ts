import { compareIds, MAX_ID, NIL_ID, type Result } from "../../contracts/contract";
import type * as contract from "../../contracts/orders";
import type { AuditCheck, Reservation } from "../../contracts/products";
import { auditCheck, runChecks } from "../../mixins/audit";
import type { Database } from "../../mixins/database";
import { CHECKS, nthAfter, ordersBetween, start, type AuditedOrder } from "./audit.store";

/** What the audit asks of the products service. */
export interface ProductsSide {
  audit(): Promise<AuditCheck[]>;
  reservations(after: string, upto: string): Promise<{ items: Reservation[]; next: string | null }>;
}

/** Orders that are compared at a time. */
const WINDOW = 2_000;
const MOST_SUSPECTS = 1_000;

/**
 * Every invariant, within each database and between them. Each service reads its own; orders and reservations are
 * compared page by page. What differs is looked at a second time, since it may have been on its way.
 */
export async function auditShop(db: Database, products: ProductsSide): Promise<Result<typeof contract.audit>> {
  const mark = await start(db);
  const own = await runChecks(db, CHECKS);
  const theirs = await products.audit();

  const suspects: string[] = [];
  let unseen = 0;
  for (let after = NIL_ID; after !== MAX_ID;) {
    // The last window has no end: a reservation that has lost its order may lie anywhere.
    const { upto, differences } = await compare(db, products, after, (await nthAfter(db, after, WINDOW)) ?? MAX_ID);
    const free = MOST_SUSPECTS - suspects.length;
    suspects.push(...[...differences.keys()].slice(0, free));
    unseen += Math.max(0, differences.size - free);
    after = upto;
  }

  const violations: string[] = [];
  for (const id of suspects) violations.push(...(await compare(db, products, justBefore(id), id)).differences.values());

  const checks = [
    ...own,
    ...theirs,
    auditCheck("orders and reservations agree", violations, violations.length + (violations.length > 0 ? unseen : 0)),
  ];
  return {
    ok: checks.every((check) => check.ok),
    checked_at: mark.checked_at.toISOString(),
    in_flight: mark.in_flight,
    oldest_in_flight: mark.oldest,
    parked: mark.parked,
    checks,
  };
}

/**
 * Compares the orders after one id, up to and with another, or with an earlier one where so many reservations don't fit into a message.
 * @returns how far, and what differs, by order id
 */
async function compare(
  db: Database,
  products: ProductsSide,
  after: string,
  most: string,
): Promise<{ upto: string; differences: Map<string, string> }> {
  const { items, next } = await products.reservations(after, most);
  const upto = next ?? most;
  const reservations = new Map(items.map((reservation) => [reservation.order_id, reservation]));
  const differences = new Map<string, string>();
  for (const order of await ordersBetween(db, after, upto)) {
    const difference = disagreement(order, reservations.get(order.id));
    if (difference !== undefined) differences.set(order.id, `order ${order.id}: ${difference}`);
    reservations.delete(order.id);
  }
  for (const { order_id, state } of reservations.values())
    differences.set(order_id, `order ${order_id}: a reservation (${state}) without an order`);
  return { upto, differences };
}

/** The UUID before one: a window after it, up to this one, has this one alone. */
function justBefore(id: string): string {
  const before = BigInt(`0x${id.replaceAll("-", "")}`) - 1n;
  return before
    .toString(16)
    .padStart(32, "0")
    .replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** CONFIRMED ⇔ RESERVED, REJECTED ⇔ REJECTED, CANCELLED ⇒ RELEASED, REJECTED or none; and the lines are the same. */
export function disagreement(order: AuditedOrder, reservation: Reservation | undefined): string | undefined {
  if (order.outbox === "PENDING") return undefined;
  const isParked = order.outbox === "PARKED";
  const state = reservation?.state ?? "none";
  const agreeing: Record<AuditedOrder["status"], readonly string[]> = {
    PENDING: isParked ? ["none", "RESERVED", "REJECTED"] : [],
    CONFIRMED: ["RESERVED"],
    REJECTED: ["REJECTED"],
    CANCELLED: isParked ? ["RELEASED", "REJECTED", "none", "RESERVED"] : ["RELEASED", "REJECTED", "none"],
  };
  if (!agreeing[order.status].includes(state)) return `${order.status}, its reservation ${state}`;
  // A tombstone has none: its order was cancelled before it was heard of.
  const isTombstone = state === "RELEASED" && reservation?.lines.length === 0;
  if (reservation !== undefined && !isTombstone && digest(reservation) !== order.lines)
    return "its lines and those of its reservation differ";
  return undefined;
}

const digest = ({ lines }: Reservation): string =>
  [...lines]
    .sort((a, b) => compareIds(a.product_id, b.product_id))
    .map((line) => `${line.product_id}:${line.quantity}`)
    .join();
