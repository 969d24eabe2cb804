import { checkBalance } from "./balance";
import { checkConditional } from "./conditional";
import { groupOperations, type Facts } from "./facts";
import { describe, type Findings } from "./findings";
import { checkKeys } from "./keys";
import { checkLists } from "./lists";
import type { Operation, Violation } from "./operation";
import { checkOrders } from "./orders";
import { checkProducts } from "./products";
import { checkStreams } from "./streams";
import { checkVisibility } from "./visibility";

/** Each check looks for violations of the rules listed in its own comment. */
const CHECKS: readonly ((facts: Facts) => Findings)[] = [
  checkProducts,
  checkConditional,
  checkBalance,
  checkOrders,
  checkKeys,
  checkVisibility,
  checkLists,
  checkStreams,
];

export interface Verdict {
  /** At most `KEPT` per check. */
  violations: Violation[];
  /** The total number per check that found violations. */
  totals: { check: string; total: number }[];
}

/**
 * Checks a whole history.
 * @param operations in any order; they are kept in memory and not changed
 */
export function checkHistory(operations: readonly Operation[]): Verdict {
  const facts = groupOperations(operations);
  const found = CHECKS.map((check) => check(facts)).filter(({ total }) => total > 0);
  return { violations: found.flatMap(({ violations }) => violations), totals: found.map(({ check, total }) => ({ check, total })) };
}

/** Formats a report: at most `perCheck` violations per check, each with the operations that show it. */
export function report({ violations, totals }: Verdict, perCheck = 5): string[] {
  return totals.flatMap(({ check, total }) => [
    `${check}: ${total} ${total === 1 ? "violation" : "violations"}`,
    ...violations
      .filter((violation) => violation.check === check)
      .slice(0, perCheck)
      .flatMap(({ message, operations }) => [`  ${message}`, ...operations.slice(-5).map((operation) => `    ${describe(operation)}`)]),
  ]);
}
