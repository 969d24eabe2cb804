import type { Result } from "../../contracts/contract";
import type * as contract from "../../contracts/orders";
import type { AuditCheck, Reservation } from "../../contracts/products";
import { auditCheck, runChecks } from "../../mixins/audit";
import type { Database } from "../../mixins/database";
import { CHECKS, ordersBetween, watermark, type AuditedOrder } from "./audit.store";

/** What the audit asks of the products service. */
export interface ProductsSide {
  audit(): Promise<AuditCheck[]>;
  reservations(after: number, upto: number): Promise<{ items: Reservation[]; next: number | null }>;
}

/** Ids that are compared at a time, on both sides. */
const WINDOW = 2_000;
const MOST_SUSPECTS = 1_000;

/**
 * Every invariant, within each database and between them. Each service reads its own; orders and reservations are
 * compared page by page up to a watermark. What differs is looked at a second time, since it may have been on its way.
 */
export async function auditShop(db: Database, products: ProductsSide): Promise<Result<typeof contract.audit>> {
  const mark = await watermark(db);
  const own = await runChecks(db, CHECKS);
  const theirs = await products.audit();

  // Reservations that are newer than the newest order may have lost theirs.
  const newer = await products.reservations(mark.last_id, Number.MAX_SAFE_INTEGER);
  const last = newer.items.at(-1)?.order_id ?? mark.last_id;
  const suspects: number[] = [];
  for (let after = 0; after < last; after += WINDOW) {
    suspects.push(...(await compare(db, products, after, Math.min(after + WINDOW, last))).keys());
  }

  const violations: string[] = [];
  for (const id of suspects.slice(0, MOST_SUSPECTS)) violations.push(...(await compare(db, products, id - 1, id)).values());
  const unseen = Math.max(0, suspects.length - MOST_SUSPECTS);

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

/** @returns what differs, by order id */
async function compare(db: Database, products: ProductsSide, after: number, upto: number): Promise<Map<number, string>> {
  const [orders, theirs] = await Promise.all([ordersBetween(db, after, upto), reservationsBetween(products, after, upto)]);
  const reservations = new Map(theirs.map((reservation) => [reservation.order_id, reservation]));
  const differences = new Map<number, string>();
  for (const order of orders) {
    const difference = disagreement(order, reservations.get(order.id));
    if (difference !== undefined) differences.set(order.id, `order ${order.id}: ${difference}`);
    reservations.delete(order.id);
  }
  for (const { order_id, state } of reservations.values())
    differences.set(order_id, `order ${order_id}: a reservation (${state}) without an order`);
  return differences;
}

async function reservationsBetween(products: ProductsSide, after: number, upto: number): Promise<Reservation[]> {
  const { items, next } = await products.reservations(after, upto);
  return next === null ? items : [...items, ...(await reservationsBetween(products, next, upto))];
}

/** CONFIRMED ⇔ RESERVED, REJECTED ⇔ REJECTED, CANCELLED ⇒ RELEASED, REJECTED or none; and the lines are the same. */
export function disagreement(order: AuditedOrder, reservation: Reservation | undefined): string | undefined {
  if (order.unsettled) return undefined;
  const state = reservation?.state ?? "none";
  const agreeing: Record<AuditedOrder["status"], readonly string[]> = {
    PENDING: [],
    CONFIRMED: ["RESERVED"],
    REJECTED: ["REJECTED"],
    CANCELLED: ["RELEASED", "REJECTED", "none"],
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
    .sort((a, b) => a.product_id - b.product_id)
    .map((line) => `${line.product_id}:${line.quantity}`)
    .join();
