import type { Result } from "../../contracts/contract";
import type * as contract from "../../contracts/orders";
import type { AuditCheck, Reservation } from "../../contracts/products";
import { auditCheck, runChecks } from "../../mixins/audit";
import type { Database } from "../../mixins/database";
import { CHECKS, ordersBetween, watermark, type AuditedOrder } from "./audit.store";

/** What the audit asks of the products service. */
export interface ProductsSide {
  audit(): Promise<AuditCheck[]>;
  reservations(after: number, upto: number): Promise<Reservation[]>;
}

/** Ids that are compared at a time, on both sides. */
const WINDOW = 5_000;
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
  const last = newer.at(-1)?.order_id ?? mark.last_id;
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
  const orders = new Map((await ordersBetween(db, after, upto)).map((order) => [order.id, order]));
  const reservations = new Map((await products.reservations(after, upto)).map((r) => [r.order_id, r]));
  const differences = new Map<number, string>();
  for (const id of new Set([...orders.keys(), ...reservations.keys()])) {
    const difference = disagreement(orders.get(id), reservations.get(id));
    if (difference !== undefined) differences.set(id, `order ${id}: ${difference}`);
  }
  return differences;
}

/** CONFIRMED ⇔ RESERVED, REJECTED ⇔ REJECTED, CANCELLED ⇒ RELEASED, REJECTED or none; and the lines are the same. */
export function disagreement(order: AuditedOrder | undefined, reservation: Reservation | undefined): string | undefined {
  if (order === undefined) return `a reservation (${reservation?.state ?? "none"}) without an order`;
  if (order.unsettled) return undefined;
  const state = reservation?.state ?? "none";
  const agreeing: Record<AuditedOrder["status"], readonly string[]> = {
    PENDING: [],
    CONFIRMED: ["RESERVED"],
    REJECTED: ["REJECTED"],
    CANCELLED: ["RELEASED", "REJECTED", "none"],
  };
  if (!agreeing[order.status].includes(state)) return `${order.status}, its reservation ${state}`;
  if (reservation !== undefined && reservation.lines.length > 0 && !sameLines(order, reservation))
    return "its lines and those of its reservation differ";
  return order.status === "CONFIRMED" && reservation?.lines.length === 0 ? "confirmed with nothing reserved" : undefined;
}

function sameLines(order: AuditedOrder, reservation: Reservation): boolean {
  const units = new Map(order.lines.map((line) => [line.product_id, line.quantity]));
  return units.size === reservation.lines.length && reservation.lines.every((line) => units.get(line.product_id) === line.quantity);
}
