import { unitsOf } from "./balance";
import type { Facts, Placing } from "./facts";
import { Findings } from "./findings";

/**
 * Each user's Idempotency-Key is a write-once register:
 * - all 201 for a key have the same order, an identical body and the same lines; an order belongs to one key;
 * - a retry that begins after a 201 was read is marked as replayed, and is no longer refused for its products, stock or body;
 * - a key is refused as reused only if a request with other lines was sent with it before.
 *
 * Lines are the same if they add up to the same units per product. After a refusal, a key may be used again with any lines.
 */
export function checkKeys({ keys }: Facts): Findings {
  const findings = new Findings("keys");
  const owners = new Map<string, Placing>();
  for (const attempts of keys) {
    const first = firstOf(attempts);
    if (first?.seen !== undefined) {
      const other = owners.get(first.seen.id);
      if (other !== undefined)
        findings.add(`order ${first.seen.id} is the response to two keys, or to two requests without one`, other, first);
      owners.set(first.seen.id, first);
    }
    if (attempts.length > 1 || attempts[0]?.code === "IDEMPOTENCY_KEY_REUSED") checkKey(attempts, first, findings);
  }
  return findings;
}

/** The 201 that was read first. */
function firstOf(attempts: readonly Placing[]): Placing | undefined {
  let first: Placing | undefined;
  for (const attempt of attempts) if (attempt.seen !== undefined && (attempt.end ?? Infinity) < (first?.end ?? Infinity)) first = attempt;
  return first;
}

/** The value that the shop compares: units by product, in any order. */
export const unitsKey = (placing: Placing): string => JSON.stringify([...unitsOf(placing)].sort(([a], [b]) => (a < b ? -1 : 1)));

/** Codes with which a retry must not be refused after its key has created an order. */
const NEVER_AGAIN = ["PRODUCT_NOT_FOUND", "INSUFFICIENT_STOCK", "IDEMPOTENCY_KEY_REUSED"];

function checkKey(attempts: readonly Placing[], first: Placing | undefined, findings: Findings): void {
  const name = `key ${attempts[0]?.key ?? "?"} of ${attempts[0]?.user ?? "?"}`;
  for (const attempt of attempts) {
    const { seen, digest, code } = attempt;
    const isSame = first === undefined || unitsKey(attempt) === unitsKey(first);
    const isLater = first?.end !== undefined && first.end < attempt.begin;
    if (seen !== undefined && first?.seen !== undefined && attempt !== first) {
      if (seen.id !== first.seen.id) findings.add(`${name} made order ${first.seen.id}, then ${seen.id}`, first, attempt);
      else if (!isSame) findings.add(`${name} gets a 201 for other lines than its order's`, first, attempt);
      else if (digest !== first.digest) findings.add(`${name} gets another body than the first 201`, first, attempt);
      else if (isLater && attempt.replayed !== true) findings.add(`${name} gets a replay without Idempotent-Replayed`, first, attempt);
    }
    if (code === "IDEMPOTENCY_KEY_REUSED" && !mayBeReused(attempt, attempts))
      findings.add(`${name} is refused as reused, although all requests had the same lines`, attempt);
    else if (isLater && isSame && code !== undefined && NEVER_AGAIN.includes(code))
      findings.add(`${name} has created an order, and its retry is refused with ${code}`, first, attempt);
  }
}

const mayBeReused = (refused: Placing, attempts: readonly Placing[]): boolean =>
  attempts.some((other) => other.outcome !== "failed" && other.begin <= (refused.end ?? Infinity) && unitsKey(other) !== unitsKey(refused));
