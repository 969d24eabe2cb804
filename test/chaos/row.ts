import type { Fault } from "./fault";

/** The result of one fault, or of two that overlap. It is a row of the table. */
export interface Row {
  faults: readonly Fault[];
  /** the system was healthy before the fault, and the fault could be caused */
  isValid: boolean;
  accepted: number;
  /** Successful writes lost with a database that was set back; no violations. */
  lost: number;
  repeats: number;
  failures: number;
  silence: number;
  slowest: number;
  recovery: number | undefined;
  /** Number of operations in the checked history; undefined if it wasn't checked, since a database was set back. */
  operations: number | undefined;
  violations: string[];
  notRun?: string | undefined;
}

export const numbersOf = ({ faults }: Row): string => faults.map(({ number }) => number).join("+");
export const namesOf = ({ faults }: Row): string => faults.map(({ name }) => name).join(", and ");

export const HEAD = [
  "#",
  "fault",
  "orders",
  "lost",
  "repeats",
  "failed",
  "silence ms",
  "slowest ms",
  "recovery ms",
  "history",
  "violations",
];

/** As many cells as HEAD has, or fewer if the fault was not run. */
export function cellsOf(row: Row): string[] {
  const { notRun, accepted, lost, repeats, failures, silence, slowest, recovery, operations, violations } = row;
  const checked = operations ?? "not checked";
  const figures = [accepted, lost, repeats, failures, silence, slowest, recovery ?? "never", checked, violations.length].map(String);
  return [numbersOf(row), namesOf(row), ...(notRun === undefined ? figures : [`not run: ${notRun}`])];
}

export function table(rows: Row[]): string {
  const cells = [HEAD, ...rows.map(cellsOf)];
  const widths = HEAD.map((_, i) => Math.max(...cells.filter((line) => line.length === HEAD.length).map((line) => line[i]?.length ?? 0)));
  return cells
    .map((line) => line.map((cell, i) => (i === 1 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join("  "))
    .join("\n");
}
