import type { Facts, Happening, OrderFacts, OrderSighting } from "./facts";
import { Findings } from "./findings";
import { Known } from "./known";
import type { Of, OrderSeen } from "./operation";
import { has, isConsistent, isPath, list, mayBecome, NONE } from "./progress";

/**
 * Each order follows its state machine:
 * - a request that begins after an order was seen in a status shows that status or one that can follow it, in responses, lists and histories alike;
 * - a history is a path through the state machine, from PENDING to the current status;
 * - a version has one status, and a request that begins later shows no smaller version; total and time of creation never change;
 * - the response to a successful cancel has the status CANCELLED; no order is CANCELLED before a cancel request;
 * - in a quiet period, an order that was accepted before it is decided, unless its outbox row is parked.
 *
 * Not checked: whether a REJECTED order could have been confirmed (another order may have held the stock briefly), and times in histories.
 */
export function checkOrders({ orders, quiets }: Facts): Findings {
  const findings = new Findings("orders");
  for (const order of orders.values()) {
    checkProgress(order, findings);
    const sightings = order.sightings.flatMap(seenOf);
    checkHistories(order, sightings, findings);
    checkVersions(order, sightings, findings);
    checkConstants(order, sightings, findings);
    checkCancels(order, findings);
    for (const quiet of quiets) checkDecided(order, sightings, quiet, findings);
  }
  return findings;
}

/** The statuses that an order had had before a moment. */
export const statusesOf = ({ happenings }: OrderFacts): Known<number> =>
  new Known<number>(happenings, NONE, (known, value) => known | value);

function checkProgress(order: OrderFacts, findings: Findings): void {
  const known = statusesOf(order);
  let isFound = false;
  for (const { begin, status, history, by } of order.sightings) {
    const been = known.before(begin);
    if (mayBecome(been, status) && (history === undefined || (been & ~history) === 0)) continue;
    isFound = true;
    const proof = order.happenings.find(
      ({ at, value }) => at < begin && (!mayBecome(value, status) || (history !== undefined && value & ~history)),
    );
    const shown = history === undefined ? status : `${status} with the history ${list(history).join(", ")}`;
    findings.add(`order ${order.id} is shown ${shown} after it was ${list(been).join(" and ")}`, proof?.by, by);
  }
  const been = known.before(Infinity);
  if (isFound || isConsistent(been)) return;
  const proof = [...order.happenings].sort(byTime).slice(-2);
  findings.add(`order ${order.id} was ${list(been).join(" and ")}, which no order can be`, ...proof.map(({ by }) => by));
}

const byTime = (a: Happening, b: Happening): number => a.at - b.at;

/** A response that shows a single order. */
interface Seen extends OrderSighting {
  seen: OrderSeen;
}

const seenOf = (sighting: OrderSighting): Seen[] => {
  const { by } = sighting;
  return (by.kind === "order.read" || by.kind === "order.cancel") && by.seen !== undefined ? [{ ...sighting, seen: by.seen }] : [];
};

function checkHistories(order: OrderFacts, sightings: readonly Seen[], findings: Findings): void {
  for (const { seen, by } of sightings)
    if (seen.history !== undefined && (!isPath(seen.history) || seen.history.at(-1) !== seen.status))
      findings.add(`order ${order.id} is ${seen.status} with the history ${seen.history.join(", ") || "(empty)"}`, by);
}

function checkVersions(order: OrderFacts, sightings: readonly Seen[], findings: Findings): void {
  const seen = sightings.flatMap((one) => (one.seen.version === undefined ? [] : { ...one, version: one.seen.version }));
  const known = new Known<(typeof seen)[number] | undefined>(
    seen.map((value) => ({ at: value.end, value })),
    undefined,
    (before, value) => (before && value && before.version >= value.version ? before : value),
  );
  const versions = new Map<number, (typeof seen)[number]>();
  for (const one of seen) {
    const before = known.before(one.begin);
    if (before && before.version > one.version)
      findings.add(`order ${order.id} is read in version ${one.version} after version ${before.version} was seen`, before.by, one.by);
    const same = versions.get(one.version);
    if (same === undefined) versions.set(one.version, one);
    else if (same.status !== one.status)
      findings.add(`version ${one.version} of order ${order.id} is ${same.status}, then ${one.status}`, same.by, one.by);
  }
}

function checkConstants(order: OrderFacts, sightings: readonly Seen[], findings: Findings): void {
  const first = order.placed?.seen;
  if (first === undefined) return;
  for (const { seen, by } of sightings)
    for (const name of ["total", "created"] as const)
      if (first[name] !== undefined && seen[name] !== undefined && first[name] !== seen[name])
        findings.add(`the ${name} of order ${order.id} was ${first[name]}, and is ${seen[name]}`, order.placed, by);
}

function checkCancels(order: OrderFacts, findings: Findings): void {
  let first = Infinity;
  for (const call of order.calls) {
    if (call.kind !== "order.cancel") continue;
    if (call.outcome !== "failed") first = Math.min(first, call.begin);
    if (call.seen && call.seen.status !== "CANCELLED")
      findings.add(`the response to a cancel of order ${order.id} has the status ${call.seen.status}`, call);
  }
  // An order whose first response is missing may be older than the history, and so may its cancel.
  if (order.placed === undefined || order.placed.replayed === true) return;
  const early = order.happenings.find(({ at, value }) => has(value, "CANCELLED") && at < first);
  if (early !== undefined) findings.add(`order ${order.id} is CANCELLED before any cancel request`, early.by);
}

function checkDecided(order: OrderFacts, sightings: readonly Seen[], quiet: Of<"quiet">, findings: Findings): void {
  if (order.placedAt >= quiet.begin) return;
  const pending = sightings.find(
    ({ begin, end, seen }) => begin > quiet.begin && end < quiet.end && seen.status === "PENDING" && seen.parked !== true,
  );
  if (pending !== undefined) findings.add(`order ${order.id} is still PENDING in a quiet period`, order.placed, quiet, pending.by);
}
