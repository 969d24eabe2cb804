import { compareIds } from "../../contracts/contract";
import { NO_LINES } from "../../contracts/lines";
import type { Line, Status } from "../../contracts/orders";
import type { Outcome, Quote, Shortage } from "../../contracts/products";

/** A line as ordered, with the name and the price at that moment. */
export interface OrderLine {
  product_id: string;
  name: string;
  unit_price_cents: number;
  quantity: number;
}

/** Why an order can't be placed now. */
export type Refusal = { kind: "unknown"; product_ids: string[] } | { kind: "short"; shortages: Shortage[] };

export type Placement = { ok: true; lines: OrderLine[]; total_cents: number } | { ok: false; refusal: Refusal };

/** Adds up the lines of each product and sorts them by product, so that equal requests have equal lines. */
export function mergeLines(lines: readonly Line[]): Line[] {
  const units = new Map<string, number>();
  for (const { product_id, quantity } of lines) units.set(product_id, (units.get(product_id) ?? 0) + quantity);
  return [...units].map(([product_id, quantity]) => ({ product_id, quantity })).sort((a, b) => compareIds(a.product_id, b.product_id));
}

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

export const describeShortages = (shortages: readonly Shortage[]): string =>
  `not enough stock: ${shortages.map((s) => `product ${s.product_id}: ${s.wanted} wanted, ${s.available} left`).join("; ")}`;

/*
 *  PENDING ──stock reserved──▶ CONFIRMED ──cancel──▶ CANCELLED
 *     │ └────stock short─────▶ REJECTED
 *     └──────cancel──────────▶ CANCELLED
 */

/** The states that may follow each state. The functions below implement this table, and the audit checks it. */
export const NEXT: Readonly<Record<Status, readonly Status[]>> = {
  PENDING: ["CONFIRMED", "REJECTED", "CANCELLED"],
  CONFIRMED: ["CANCELLED"],
  REJECTED: [],
  CANCELLED: [],
};

/** @returns the state after a cancel, or undefined if the order can't be cancelled; cancelling twice changes nothing */
export function cancel(status: Status): "CANCELLED" | undefined {
  return status === "REJECTED" ? undefined : "CANCELLED";
}

/** The outcomes that fit an order in each state. */
const FITTING: Readonly<Record<Status, readonly Outcome["outcome"][]>> = {
  PENDING: ["RESERVED", "REJECTED"],
  CONFIRMED: ["RESERVED"],
  REJECTED: ["REJECTED"],
  CANCELLED: ["RESERVED", "REJECTED", "RELEASED"], // the first two were late
};

/**
 * Why a reply does not fit this order: then one of the two databases was restored from a backup, or edited by hand.
 * @returns undefined if it fits
 */
export function misfit(order: { status: Status; lines_digest: string }, reply: Outcome): string | undefined {
  if (!FITTING[order.status].includes(reply.outcome)) return `its stock is ${reply.outcome} while it is ${order.status}`;
  const isTombstone = reply.outcome === "RELEASED" && reply.lines_digest === NO_LINES;
  return isTombstone || reply.lines_digest === order.lines_digest ? undefined : `its stock is ${reply.outcome} for other lines`;
}

/**
 * The state after an outcome. An order that is no longer PENDING stays as it is: a late or repeated RESERVED does not revive a cancelled
 * order, whose cancel is in flight and will release the stock.
 */
export function settle(status: Status, outcome: Outcome["outcome"]): Status {
  if (status !== "PENDING") return status;
  switch (outcome) {
    case "RESERVED":
      return "CONFIRMED";
    case "REJECTED":
      return "REJECTED";
    case "RELEASED":
      return "PENDING"; // unreachable: it does not fit
    default:
      return outcome satisfies never;
  }
}

/** The event that an outcome settles; null for every event of the order, since RELEASED and REJECTED are final. */
export function answeredEvent(outcome: Outcome["outcome"]): "order.created" | null {
  return outcome === "RESERVED" ? "order.created" : null;
}
