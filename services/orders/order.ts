import { compareIds, type Params, type Shortage } from "../../contracts/contract";
import { digestOfJson } from "../../contracts/digest";
import { NO_LINES } from "../../contracts/lines";
import type { create, Line, orderCancelled, orderCreated, Status } from "../../contracts/orders";
import type { Outcome, Quote } from "../../contracts/products";

/** A line as ordered, with the name and the price at that moment. */
export interface OrderLine {
  product_id: string;
  name: string;
  unit_price_cents: number;
  quantity: number;
}

/** The outboxed events of an order that its reservation depends on. */
export type OrderEvent = typeof orderCreated.name | typeof orderCancelled.name;
export const RESERVATION_EVENTS: readonly OrderEvent[] = ["order.created", "order.cancelled"];

/** Why an order can't be placed now. */
export type Refusal = { kind: "unknown"; product_ids: string[] } | { kind: "short"; shortages: Shortage[] };

type Placement = { ok: true; lines: OrderLine[]; total_cents: number } | { ok: false; refusal: Refusal };

/** What a client writes in an order request. */
export type Content = Omit<Params<typeof create>, "idempotency_key">;

/**
 * Adds up the lines of each product and sorts them by product, so that equal requests have equal lines. `Required`: after adding a field to
 * Line, even an optional one, this does not compile until the field is merged here and so becomes part of the request hash.
 */
export function mergeLines(lines: readonly Line[]): Required<Line>[] {
  const units = new Map<string, number>();
  for (const { product_id, quantity } of lines) units.set(product_id, (units.get(product_id) ?? 0) + quantity);
  return [...units].map(([product_id, quantity]) => ({ product_id, quantity })).sort((a, b) => compareIds(a.product_id, b.product_id));
}

/**
 * Identifies the content of an order request: requests with the same `Idempotency-Key` must have the same hash. It covers every field, so
 * fields added to the contract later need no change here.
 * @param content with merged lines
 */
export const hashRequest = (content: Content): string => digestOfJson(content);

/** Places merged lines at the quoted names and prices. Sufficient stock at this point guarantees nothing: products decides later. */
export function place(lines: readonly Line[], quotes: readonly Quote[]): Placement {
  const quoted = new Map(quotes.map((quote) => [quote.id, quote]));
  const unknown = lines.filter((line) => !quoted.has(line.product_id)).map((line) => line.product_id);
  if (unknown.length > 0) return { ok: false, refusal: { kind: "unknown", product_ids: unknown } };

  const placed: OrderLine[] = [];
  const shortages: Shortage[] = [];
  for (const { product_id, quantity } of lines) {
    const quote = quoted.get(product_id);
    if (quote === undefined) continue; // reported above
    if (quote.quantity < quantity) shortages.push({ product_id, wanted: quantity, available: quote.quantity });
    placed.push({ product_id, name: quote.name, unit_price_cents: quote.price_cents, quantity });
  }
  if (shortages.length > 0) return { ok: false, refusal: { kind: "short", shortages } };
  return { ok: true, lines: placed, total_cents: total(placed) };
}

export const total = (lines: readonly OrderLine[]): number => lines.reduce((sum, line) => sum + line.unit_price_cents * line.quantity, 0);

/** The reason of a rejected order, and the detail of an order request that is refused for the same reason. */
export function describeShortages(shortages: readonly Shortage[]): string {
  const short = shortages.filter(({ available }) => available !== null);
  const unsold = shortages.filter(({ available }) => available === null);
  const reasons = [];
  if (short.length > 0)
    reasons.push(
      `not enough stock: ${short.map((s) => `product ${s.product_id}: ${s.wanted} wanted, ${s.available ?? 0} left`).join("; ")}`,
    );
  if (unsold.length > 0) reasons.push(`no longer sold: ${unsold.map((s) => `product ${s.product_id}`).join(", ")}`);
  return reasons.join("; ");
}

/** What may change an order's state. */
type Input = "cancel" | Outcome["outcome"];

/*
 *  PENDING ──stock reserved──▶ CONFIRMED ──cancel──▶ CANCELLED
 *     │ └────stock short─────▶ REJECTED
 *     └──────cancel──────────▶ CANCELLED
 */

/**
 * The state after each input that fits a state; the only place that decides. A late or repeated outcome changes nothing: RESERVED does not
 * revive a cancelled order, whose cancel is in flight and will release the stock. Cancelling twice changes nothing either.
 */
const AFTER: Readonly<Record<Status, Readonly<Partial<Record<Input, Status>>>>> = {
  PENDING: { cancel: "CANCELLED", RESERVED: "CONFIRMED", REJECTED: "REJECTED" },
  CONFIRMED: { cancel: "CANCELLED", RESERVED: "CONFIRMED" },
  REJECTED: { REJECTED: "REJECTED" },
  CANCELLED: { cancel: "CANCELLED", RESERVED: "CANCELLED", REJECTED: "CANCELLED", RELEASED: "CANCELLED" },
};

/**
 * The state after an input; undefined if it does not fit the state: a cancel is then refused; after a reply, the order's pending outbox rows
 * are parked.
 */
export const after = (status: Status, input: Input): Status | undefined => AFTER[status][input];

/** The states that may follow each state. The audit checks them. */
export const NEXT: Readonly<Record<Status, readonly Status[]>> = {
  PENDING: nextOf("PENDING"),
  CONFIRMED: nextOf("CONFIRMED"),
  REJECTED: nextOf("REJECTED"),
  CANCELLED: nextOf("CANCELLED"),
};

function nextOf(status: Status): Status[] {
  return [...new Set(Object.values(AFTER[status]))].filter((next) => next !== status);
}

/**
 * Why a reply does not match this order: then one of the two databases was restored from a backup, or edited by hand.
 * @returns undefined if it fits
 */
export function mismatch(order: { status: Status; lines_digest: string }, reply: Outcome): string | undefined {
  if (after(order.status, reply.outcome) === undefined) return `the reservation is ${reply.outcome} but the order is ${order.status}`;
  const isTombstone = reply.outcome === "RELEASED" && reply.lines_digest === NO_LINES;
  return isTombstone || reply.lines_digest === order.lines_digest ? undefined : `the reservation is ${reply.outcome} for other lines`;
}

/** The events of an order that an outcome settles: RELEASED and REJECTED are final, and settle both. */
export function settledEvents(outcome: Outcome["outcome"]): readonly OrderEvent[] {
  return outcome === "RESERVED" ? ["order.created"] : RESERVATION_EVENTS;
}
