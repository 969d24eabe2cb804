import { existsSync } from "node:fs";
import path from "node:path";
import { ROOT } from "../../testkit/repository";
import type { Check, Counts, CoveredElsewhere } from "./attack";
import { worstOf, type AttackResult } from "./attack-runner";
import type { Layout } from "./shop";
import type { Comparison } from "./verdict";

export const HEAD = [
  "#",
  "attack",
  "layout",
  "what the attacker got",
  "victims' failures",
  "worst p99, ms",
  "logins' p99, ms",
  "peak memory, MB",
  "held",
];

const MAX_COUNTS = 6;

function counted(counts: Counts): string {
  const sorted = Object.entries(counts).sort(([, a], [, b]) => b - a);
  return (
    sorted
      .map(([what, count]) => `${count} × ${what}`)
      .slice(0, MAX_COUNTS)
      .join(", ") || "nothing"
  );
}

const compared = (comparison: Comparison | undefined): string =>
  comparison === undefined ? "none" : `${comparison.kind} ${comparison.withoutMs.toFixed(0)} → ${comparison.withMs.toFixed(0)}`;

/** @param isRepeated it was not held at the first try */
export function cellsOf(layout: Layout, result: AttackResult, isRepeated: boolean): string[] {
  const { attack, counts, victims, memoryMb, violations } = result;
  const failures = Object.values(victims.failures).reduce((sum, count) => sum + count, 0);
  const memory = Object.entries(memoryMb).map(([name, mb]) => `${name.replace(`${layout}-`, "")} ${mb.toFixed(0)}`);
  return [
    attack.row,
    attack.name,
    layout,
    counted(counts),
    `${failures} of ${victims.requests}`,
    compared(worstOf(result, false)),
    compared(worstOf(result, true)),
    memory.join(", "),
    violations.length > 0 ? "NO" : isRepeated ? "yes, repeated" : "yes",
  ];
}

export const checkCells = (layout: Layout, { row, name }: Check, violations: readonly string[]): string[] => [
  row,
  name,
  layout,
  "",
  "",
  "",
  "",
  "",
  violations.length === 0 ? "yes" : "NO",
];

export const coveredElsewhereCells = ({ row, name, coveredBy }: CoveredElsewhere): string[] => [row, name, "", `see ${coveredBy}`];

/** Rows that refer to a test file which doesn't exist. */
export const missingTests = (coveredElsewhere: readonly CoveredElsewhere[]): CoveredElsewhere[] =>
  coveredElsewhere.filter(({ coveredBy }) => !existsSync(path.join(ROOT, coveredBy.split(" ")[0] ?? "")));

export function table(rows: readonly string[][]): string {
  const all = [HEAD, ...rows];
  const widths = HEAD.map((_, i) => Math.max(...all.map((cells) => cells[i]?.length ?? 0)));
  return all
    .map((cells) =>
      HEAD.map((_, i) => (cells[i] ?? "").padEnd(widths[i] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
