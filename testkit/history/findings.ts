import type { Operation, Violation } from "./operation";

/** How many violations are kept per check; the others are only counted, since a faulty system produces too many to read. */
export const KEPT = 100;

/** The findings of one check. */
export class Findings {
  readonly violations: Violation[] = [];
  /** Number of violations, including those not kept. */
  total = 0;

  constructor(readonly check: string) {}

  /** @param operations that show it, the decisive one last */
  add(message: string, ...operations: readonly (Operation | undefined)[]): void {
    this.total++;
    if (this.violations.length === KEPT) return;
    this.violations.push({ check: this.check, message, operations: operations.filter((operation) => operation !== undefined) });
  }
}

/** Describes an operation in one line; times are in seconds of the recording's clock. */
export function describe(operation: Operation): string {
  const times = `${seconds(operation.begin)}–${seconds(operation.end)} s`;
  if (operation.kind === "quiet") return `quiet, ${times}`;
  const { kind, outcome, status, code, user, gateway } = operation;
  return [
    [kind, subjectOf(operation)].filter(Boolean).join(" "),
    `by ${user || "nobody"}`,
    outcome === "failed" ? [status ?? outcome, code].filter(Boolean).join(" ") : outcome,
    seenIn(operation),
    gateway && `through ${gateway}`,
    times,
  ]
    .filter(Boolean)
    .join(", ");
}

const seconds = (ms: number | undefined): string => (ms === undefined ? "?" : (ms / 1000).toFixed(3));

function subjectOf(operation: Operation): string | undefined {
  if ("order" in operation) return operation.order;
  if ("product" in operation) return operation.product;
  return "lines" in operation ? operation.key : undefined;
}

function seenIn(operation: Operation): string {
  if (!("seen" in operation)) return "";
  const { seen } = operation;
  return "status" in seen ? `order ${seen.id} ${seen.status}` : `version ${seen.version}, quantity ${seen.quantity}, price ${seen.price}`;
}
