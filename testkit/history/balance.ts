import {
  isSighting,
  mayHaveHappened,
  type Facts,
  type OrderFacts,
  type Placing,
  type ProductCall,
  type ProductFacts,
  type ProductSighting,
} from "./facts";
import { Findings } from "./findings";
import type { Of } from "./operation";
import { has } from "./progress";

/**
 * In each quiet period, for each product that was created in this history and read in the period:
 *
 *     initial quantity + adjustments − units of CONFIRMED orders = quantity
 *
 * Changes of unknown outcome (an adjustment, cancel or order without a response, or otherwise uncertain) may count or not: some
 * combination must give the quantity that was read.
 */
export function checkBalance(facts: Facts): Findings {
  const findings = new Findings("balance");
  if (facts.quiets.length === 0) return findings;
  const demands = demandsOf(facts);
  const quiets = [...facts.quiets].sort((a, b) => a.begin - b.begin);
  for (const product of facts.products.values())
    for (const [quiet, read] of readsOf(product, quiets)) balance(product, quiet, read, demands.get(product.id) ?? [], findings);
  return findings;
}

/** The last read of a product in each quiet period that began after its creation. */
function readsOf({ create, calls }: ProductFacts, quiets: readonly Of<"quiet">[]): Map<Of<"quiet">, ProductSighting> {
  const reads = new Map<Of<"quiet">, ProductSighting>();
  if (create?.end === undefined) return reads;
  for (const call of calls) {
    if (call.kind !== "product.read" || !isSighting(call)) continue;
    const quiet = lastBefore(quiets, call.begin);
    if (quiet === undefined || create.end >= quiet.begin || call.end >= quiet.end) continue;
    if (call.begin > (reads.get(quiet)?.begin ?? 0)) reads.set(quiet, call);
  }
  return reads;
}

/** The last quiet period that began before a moment. @param quiets sorted by time */
function lastBefore(quiets: readonly Of<"quiet">[], moment: number): Of<"quiet"> | undefined {
  let low = 0;
  let high = quiets.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((quiets[middle]?.begin ?? Infinity) < moment) low = middle + 1;
    else high = middle;
  }
  return quiets[low - 1];
}

/** Units of one product that one order requests. */
interface Demand {
  units: number;
  /** Undefined if no response to POST /orders is known: the order may not exist. */
  order: OrderFacts | undefined;
  since: number;
  /** When it was first known to be CONFIRMED, CANCELLED or REJECTED; and when the first attempt to cancel it began. */
  confirmed: number;
  cancelled: number;
  rejected: number;
  cancelling: number;
}

/** Demands by product; an order's lines for the same product are added up. */
function demandsOf({ keys, orders }: Facts): Map<string, Demand[]> {
  const demands = new Map<string, Demand[]>();
  for (const attempts of keys) {
    const placed = attempts.find(({ seen }) => seen !== undefined);
    const possible = placed ? [placed] : attempts.filter(mayHaveHappened).slice(0, 1);
    // A key creates one order. If its bodies differ, the client is faulty and the order could be any of them, so take the first.
    for (const attempt of possible) {
      const order = attempt.seen && orders.get(attempt.seen.id);
      const since = attempts.reduce((first, { begin }) => Math.min(first, begin), Infinity);
      const demand = { order, since, ...decisionOf(order) };
      for (const [id, units] of unitsOf(attempt)) {
        let all = demands.get(id);
        if (all === undefined) demands.set(id, (all = []));
        all.push({ ...demand, units });
      }
    }
  }
  return demands;
}

export function unitsOf({ lines }: Placing): Map<string, number> {
  const units = new Map<string, number>();
  for (const { product_id, quantity } of lines) units.set(product_id, (units.get(product_id) ?? 0) + quantity);
  return units;
}

function decisionOf(order: OrderFacts | undefined): Pick<Demand, "confirmed" | "cancelled" | "rejected" | "cancelling"> {
  const decision = { confirmed: Infinity, cancelled: Infinity, rejected: Infinity, cancelling: Infinity };
  for (const { at, value } of order?.happenings ?? []) {
    if (has(value, "CONFIRMED")) decision.confirmed = Math.min(decision.confirmed, at);
    if (has(value, "CANCELLED")) decision.cancelled = Math.min(decision.cancelled, at);
    if (has(value, "REJECTED")) decision.rejected = Math.min(decision.rejected, at);
  }
  for (const call of order?.calls ?? [])
    if (call.kind === "order.cancel" && mayHaveHappened(call)) decision.cancelling = Math.min(decision.cancelling, call.begin);
  return decision;
}

function balance(product: ProductFacts, quiet: Of<"quiet">, read: ProductSighting, demands: readonly Demand[], findings: Findings): void {
  let certain = product.create?.quantity ?? 0;
  const doubtful: number[] = [];
  const doubtfulCalls: ProductCall[] = [];
  let sold = 0;
  let adjusted = 0;
  for (const call of product.calls) {
    if (call.kind !== "product.adjust" || !mayHaveHappened(call) || call.begin > read.end) continue;
    if (call.outcome === "ok" && (call.end ?? Infinity) < read.begin) adjusted += call.delta;
    else {
      doubtful.push(call.delta);
      doubtfulCalls.push(call);
    }
  }
  for (const demand of demands) {
    const held = holds(demand, quiet, read);
    if (held === undefined) doubtful.push(-demand.units);
    else if (held) sold += demand.units;
  }
  certain += adjusted - sold;
  if (mayAddUp(doubtful, read.seen.quantity - certain)) return;
  const doubt = doubtful.length === 0 ? "" : `, and ${doubtful.length} changes may have happened or not`;
  findings.add(
    `product ${product.id} began with ${product.create?.quantity ?? 0} units, ${adjusted} were adjusted and ${sold} sold${doubt}: ${read.seen.quantity} are left`,
    ...doubtfulCalls.slice(0, 5),
    quiet,
    read,
  );
}

/** Whether an order held its units while a product was read in a quiet period; undefined if uncertain. */
function holds(demand: Demand, quiet: Of<"quiet">, read: ProductSighting): boolean | undefined {
  if (demand.since > read.end || demand.rejected < Infinity) return false; // a REJECTED order never held units
  if (demand.cancelled < quiet.begin) return false;
  if (demand.cancelling <= read.end) return undefined;
  if (demand.confirmed < read.begin) return true; // stock is reserved first
  // placed before the quiet period, and therefore decided before it
  return (demand.order?.placedAt ?? Infinity) < quiet.begin && demand.confirmed <= quiet.end ? true : undefined;
}

/** Maximum number of steps when searching for a sum. Beyond it, only the bounds are checked. */
const MAX_STEPS = 20_000_000;

/** Whether a subset of the numbers can add up to `target`. */
export function mayAddUp(some: readonly number[], target: number): boolean {
  const lowest = some.reduce((sum, value) => sum + Math.min(value, 0), 0);
  const highest = some.reduce((sum, value) => sum + Math.max(value, 0), 0);
  if (target < lowest || target > highest) return false;
  if ((highest - lowest) * some.length > MAX_STEPS) return true;
  const isReachable = new Uint8Array(highest - lowest + 1);
  isReachable[-lowest] = 1;
  for (const value of some) {
    // iterate against the direction of the value, so that each value counts once
    const step = value > 0 ? -1 : 1;
    for (let i = value > 0 ? isReachable.length - 1 : 0; i >= 0 && i < isReachable.length; i += step)
      if (isReachable[i - value] === 1) isReachable[i] = 1;
  }
  return isReachable[target - lowest] === 1;
}
