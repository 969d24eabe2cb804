import { parseArgs } from "node:util";
import { checkHistory, report } from "../../testkit/history/check";
import { readHistory, writeHistory } from "../../testkit/history/file";
import type { Operation } from "../../testkit/history/operation";
import { simulate } from "./simulated/clients";

const USAGE = `usage: npm run history -- FILE.jsonl
       npm run history -- --simulate OPERATIONS [--seed N] [--out FILE.jsonl]`;

/** Checks a recorded history, or that of a simulated, correct shop. @returns whether there is no violation */
async function main(): Promise<boolean> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { simulate: { type: "string" }, seed: { type: "string", default: "1" }, out: { type: "string" } },
  });
  const started = performance.now();
  const operations = values.simulate === undefined ? await readHistory(fileOf(positionals)) : simulated(values.simulate, values.seed);
  if (values.out !== undefined) await writeHistory(values.out, operations);
  const read = performance.now();
  const verdict = checkHistory(operations);
  const checked = performance.now();

  for (const [kind, count] of [...countsOf(operations)].sort()) console.log(`${kind.padEnd(15)} ${String(count).padStart(9)}`);
  for (const line of report(verdict)) console.log(line);
  const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;
  const peak = Math.round(process.resourceUsage().maxRSS / 1024);
  console.log(
    `${operations.length} operations: ${values.simulate === undefined ? "read" : "simulated"} in ${seconds(read - started)}, checked in ${seconds(checked - read)}, ${peak} MB at most; ` +
      `${verdict.totals.reduce((sum, { total }) => sum + total, 0)} violations`,
  );
  return verdict.totals.length === 0;
}

function fileOf(positionals: readonly string[]): string {
  const [file, ...more] = positionals;
  if (file === undefined || more.length > 0) throw new Error(USAGE);
  return file;
}

function simulated(count: string, seed: string): Operation[] {
  if (!/^[1-9]\d{0,7}$/.test(count) || !/^\d{1,9}$/.test(seed)) throw new Error(USAGE);
  const operations: Operation[] = [];
  simulate({ operations: Number(count), seed: Number(seed) }, (operation) => operations.push(operation));
  return operations;
}

/** Counts operations by kind and outcome. */
function countsOf(operations: readonly Operation[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const operation of operations) {
    const names = operation.kind === "quiet" ? ["quiet"] : [operation.kind, `${operation.kind} ${operation.outcome}`];
    for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return counts;
}

main().then(
  (isSound) => (process.exitCode = isSound ? 0 : 1),
  (error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 2;
  },
);
