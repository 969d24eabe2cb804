import { MAX_ID, NIL_ID, type Result } from "../../contracts/contract";
import { textOf } from "../../contracts/lines";
import type * as contract from "../../contracts/orders";
import type { AuditCheck, Reservation } from "../../contracts/products";
import { auditCheck, runChecks } from "../../mixins/audit";
import type { Database } from "../../mixins/database";
import { CHECKS, nthBefore, ordersBetween, start, type AuditedOrder } from "./audit.store";

/** The calls that the audit makes to the products service. */
export interface ProductsSide {
  audit(): Promise<AuditCheck[]>;
  reservations(after: string, upto: string): Promise<{ items: Reservation[]; next: string | null }>;
}

/** Orders compared at a time. */
const WINDOW = 2_000;
const MAX_SUSPECTS = 1_000;

/**
 * Checks every invariant, within each database and between them. Each service reads its own database; orders and reservations are
 * compared page by page. Differences are checked a second time, since a message may have been in flight at the first.
 */
export async function auditShop(db: Database, products: ProductsSide): Promise<Result<typeof contract.audit>> {
  const mark = await start(db);
  const own = await runChecks(db, CHECKS);
  const theirs = await products.audit();

  const suspects: string[] = [];
  let unseen = 0;
  for await (const found of differences(db, products)) {
    const free = MAX_SUSPECTS - suspects.length;
    suspects.push(...found.slice(0, free));
    unseen += Math.max(0, found.length - free);
  }

  const violations: string[] = [];
  for (const id of suspects) {
    const difference = await compareOne(db, products, id);
    if (difference !== undefined) violations.push(`order ${id}: ${difference.what}`);
  }

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

/** An order and its reservation that disagree, and how. */
export interface Difference {
  order_id: string;
  order: AuditedOrder | undefined;
  reservation: Reservation | undefined;
  /** Also true if there is no reservation, or if it is a tombstone. */
  hasSameLines: boolean;
  what: string;
}

/**
 * The ids of orders that differ from their reservations, window by window. Newest first, since those are the ones that a restored backup has
 * lost: a repair that is called repeatedly need not read all orders each time.
 */
export async function* differences(db: Database, products: ProductsSide): AsyncGenerator<string[]> {
  // The first window has no upper bound and the last no lower bound: a reservation without an order may have any id.
  for (let upto = MAX_ID; upto !== NIL_ID;) {
    const after = (await nthBefore(db, upto, WINDOW)) ?? NIL_ID;
    for (let from = after; from !== upto;) {
      const compared = await compare(db, products, from, upto);
      yield compared.differences.map(({ order_id }) => order_id);
      from = compared.upto;
    }
    upto = after;
  }
}

/**
 * Compares the orders after one id, up to and including another; stops earlier if the reservations don't fit into one message.
 * Reservations are read first: an order exists before its reservation, so no reservation can appear to lack its order.
 * @returns the last id compared, and the differences
 */
export async function compare(
  db: Database,
  products: ProductsSide,
  after: string,
  most: string,
): Promise<{ upto: string; differences: Difference[] }> {
  const { items, next } = await products.reservations(after, most);
  const upto = next ?? most;
  const reservations = new Map(items.map((reservation) => [reservation.order_id, reservation]));
  const found: Difference[] = [];
  for (const order of await ordersBetween(db, after, upto)) {
    const reservation = reservations.get(order.id);
    reservations.delete(order.id);
    const what = disagreement(order, reservation);
    if (what !== undefined) found.push({ order_id: order.id, order, reservation, hasSameLines: haveSameLines(order, reservation), what });
  }
  // A reservation that holds no stock does no harm if a restored backup has lost its order.
  for (const reservation of reservations.values())
    if (reservation.state === "RESERVED")
      found.push({
        order_id: reservation.order_id,
        order: undefined,
        reservation,
        hasSameLines: false,
        what: "a reservation (RESERVED) without an order",
      });
  return { upto, differences: found };
}

/** Compares one order with its reservation. */
export async function compareOne(db: Database, products: ProductsSide, id: string): Promise<Difference | undefined> {
  return (await compare(db, products, justBefore(id), id)).differences[0];
}

/** The UUID before the given one: the window between the two contains the given one only. */
function justBefore(id: string): string {
  const before = BigInt(`0x${id.replaceAll("-", "")}`) - 1n;
  return before
    .toString(16)
    .padStart(32, "0")
    .replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/**
 * How an order and its reservation disagree; undefined if they agree. `agreeing` lists the reservation states that fit each status. A parked
 * row allows more of them, and with a pending row nothing is compared.
 */
export function disagreement(order: AuditedOrder, reservation: Reservation | undefined): string | undefined {
  if (order.outbox === "PENDING") return undefined;
  const isParked = order.outbox === "PARKED";
  const state = reservation?.state ?? "none";
  const agreeing: Record<AuditedOrder["status"], readonly string[]> = {
    PENDING: isParked ? ["none", "RESERVED", "REJECTED"] : [],
    CONFIRMED: ["RESERVED"],
    REJECTED: ["REJECTED", "RELEASED"],
    CANCELLED: isParked ? ["RELEASED", "REJECTED", "none", "RESERVED"] : ["RELEASED", "REJECTED", "none"],
  };
  if (!agreeing[order.status].includes(state)) return `${order.status}, its reservation ${state}`;
  return haveSameLines(order, reservation) ? undefined : "its lines and those of its reservation differ";
}

/** A release without lines: the cancel overtook the create, or products had lost the reservation. */
const isTombstone = (reservation: Reservation | undefined): boolean => reservation?.state === "RELEASED" && reservation.lines.length === 0;

const haveSameLines = (order: AuditedOrder, reservation: Reservation | undefined): boolean =>
  reservation === undefined || isTombstone(reservation) || textOf(reservation.lines) === order.lines;
