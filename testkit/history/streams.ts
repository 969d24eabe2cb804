import { isFinal, type Status } from "../../contracts/orders";
import type { Facts, OrderFacts } from "./facts";
import { Findings } from "./findings";
import type { Known } from "./known";
import type { Of } from "./operation";
import { statusesOf } from "./orders";
import { isPath, list } from "./progress";

/** Milliseconds within which an open stream sends all known statuses in a quiet period: gateways read a followed order every 5 s. */
export const SENT_WITHIN_MS = 10_000;

/**
 * Compares event streams with each other and with reads:
 * - the positions of events follow `Last-Event-ID` without gaps, and their statuses follow the state machine; none follows a final status;
 * - a position in an order's history has the same status in every stream and every history that was read;
 * - a stream that sent events and was ended by the server has sent everything that was known before it began;
 * - a stream that is open in a quiet period sends each known status within 10 s, and ends within 10 s after a final status;
 * - 204 (no more events) is only for orders that don't change any further.
 *
 * The orders check covers that a read shows what a stream has sent before. Streams end for many reasons, so a cut one may lack any event.
 */
export function checkStreams({ orders, quiets }: Facts): Findings {
  const findings = new Findings("streams");
  for (const order of orders.values()) {
    const streams = order.calls.filter((call) => call.kind === "order.stream");
    if (streams.length === 0) continue;
    const known = statusesOf(order);
    const positions = positionsOf(order);
    for (const stream of streams) {
      checkEvents(order, stream, positions, findings);
      checkWhole(order, stream, known, findings);
      for (const quiet of quiets) checkPrompt(order, stream, quiet, known, findings);
      if (stream.status === 204) checkOver(order, stream, findings);
    }
  }
  return findings;
}

/** The status at each position, from 1, according to the histories that were read. */
function positionsOf({ calls }: OrderFacts): Map<number, Status> {
  const positions = new Map<number, Status>();
  for (const call of calls)
    if (call.kind !== "order.stream") for (const [i, status] of (call.seen?.history ?? []).entries()) positions.set(i + 1, status);
  return positions;
}

function checkEvents(order: OrderFacts, stream: Of<"order.stream">, positions: Map<number, Status>, findings: Findings): void {
  const { events, last_event_id: resumed = 0 } = stream;
  const ids = events.map(({ id }) => id);
  if (ids.some((id, i) => id !== resumed + i + 1))
    findings.add(`a stream of order ${order.id} after position ${resumed} has the positions ${ids.join(", ")}`, stream);
  const statuses = events.map(({ status }) => status);
  if (events.length > 0 && !isPath(statuses, resumed === 0))
    findings.add(`a stream of order ${order.id} sends ${statuses.join(", ")}, which is no path through the state machine`, stream);
  for (const { id, status } of events) {
    const known = positions.get(id);
    if (known !== undefined && known !== status)
      findings.add(`position ${id} in the history of order ${order.id} is ${known}, and ${status} in a stream`, stream);
    positions.set(id, known ?? status);
  }
}

/** The minimum length of the history of an order that has had these statuses. */
const lengthOf = (known: Known<number>, moment: number): number => list(known.before(moment)).length;

function checkWhole(order: OrderFacts, stream: Of<"order.stream">, known: Known<number>, findings: Findings): void {
  const { events, begin, closed } = stream;
  const last = events.at(-1);
  if (closed !== "server" || last === undefined || last.id >= lengthOf(known, begin)) return;
  findings.add(
    `a stream of order ${order.id} ended after position ${last.id}; ${list(known.before(begin)).join(", ")} was known before it began`,
    stream,
  );
}

function checkPrompt(order: OrderFacts, stream: Of<"order.stream">, quiet: Of<"quiet">, known: Known<number>, findings: Findings): void {
  const { events, begin, end = 0, closed, outcome, last_event_id: resumed = 0 } = stream;
  if (outcome !== "ok" || closed === "cut") return;
  const until = Math.min(end, quiet.end) - SENT_WITHIN_MS;
  if (until <= Math.max(begin, quiet.begin)) return; // not open long enough during the period
  const sent = events.filter(({ at }) => at <= until + SENT_WITHIN_MS).at(-1)?.id ?? resumed;
  if (sent < lengthOf(known, until))
    findings.add(
      `a stream of order ${order.id} that was open for ${SENT_WITHIN_MS} ms more has sent ${sent} statuses; known were ${list(known.before(until)).join(", ")}`,
      quiet,
      stream,
    );
  const last = events.findLast(({ status }) => isFinal(status));
  if (last !== undefined && last.at < until) findings.add(`a stream of order ${order.id} stays open after ${last.status}`, quiet, stream);
}

function checkOver(order: OrderFacts, stream: Of<"order.stream">, findings: Findings): void {
  const later = order.sightings.find(({ begin, status }) => begin > (stream.end ?? Infinity) && !isFinal(status));
  if (later !== undefined)
    findings.add(`a stream of order ${order.id} responds that nothing more will come, and then it is ${later.status}`, stream, later.by);
}
