import type { Operation, Violation } from "./operation";

/** So many violations of one check are kept; the others are counted. A broken system shows more than anybody reads. */
export const KEPT = 100;

/** What one check finds. */
export class Findings {
  readonly violations: Violation[] = [];
  /** All, with those that were not kept. */
  total = 0;

  constructor(readonly check: string) {}

  /** @param operations that show it, the decisive one last */
  add(message: string, ...operations: readonly (Operation | undefined)[]): void {
    this.total++;
    if (this.violations.length === KEPT) return;
    this.violations.push({ check: this.check, message, operations: operations.filter((operation) => operation !== undefined) });
  }
}

/** Who did what when, on one line: times in seconds of the recording's clock. */
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
