import { mkdirSync, writeFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import path from "node:path";
import type { Spread } from "../testkit/statistics";
import { standing, type Verdict } from "./goals";
import type { Confirmation, Storm } from "./latency";
import { bars } from "./plot";
import { summarise, type Cell, type Idle } from "./table";

export interface Results {
  at: string;
  machine: Record<string, string | number>;
  options: Record<string, unknown>;
  idle: Idle[];
  cells: Cell[];
  confirmations: Confirmation[];
  storms: Storm[];
  verdicts: Verdict[];
  skipped: string[];
  problems: string[];
}

export const machine = (): Results["machine"] => ({
  cpu: cpus()[0]?.model ?? "unknown",
  cores: cpus().length,
  memory: `${(totalmem() / 2 ** 30).toFixed(0)} GB`,
  kernel: release(),
  node: process.version,
});

const number = (value: number): string => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2));
const range = ({ median, min, max }: Spread): string => `${number(median)} (${number(min)}–${number(max)})`;

/** A Markdown table that is also readable on a terminal. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [head, ...rows];
  const widths = head.map((_, n) => Math.max(3, ...all.map((row) => (row[n] ?? "").length)));
  const show = (row: readonly string[]): string => `| ${widths.map((width, n) => (row[n] ?? "").padEnd(width)).join(" | ")} |`;
  return [show(head), `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`, ...rows.map(show)].join("\n");
}

/** Without the node's number, since the nodes of a service are summed up. */
const roleName = (role: string): string =>
  /^.*?-(api|users|products|orders|all)(-\d+)?$/.exec(role)?.[1]?.replace("api", "gateway") ?? role;

function describe(values: Readonly<Record<string, number>>, digits: number): string {
  const sums = new Map<string, number>();
  for (const [role, value] of Object.entries(values)) sums.set(roleName(role), (sums.get(roleName(role)) ?? 0) + value);
  return [...sums].map(([role, value]) => `${role} ${value.toFixed(digits)}`).join(", ");
}

function memory(cells: readonly Cell[]): string[][] {
  const greatest = new Map<string, Record<string, number>>();
  for (const cell of cells) {
    const known = greatest.get(cell.target) ?? {};
    greatest.set(cell.target, known);
    for (const { rss } of cell.rounds) for (const [role, value] of Object.entries(rss)) known[role] = Math.max(known[role] ?? 0, value);
  }
  return [...greatest].filter(([, rss]) => Object.keys(rss).length > 0).map(([target, rss]) => [target, describe(rss, 0)]);
}

const confirmationTable = (confirmations: readonly Confirmation[]): string[] => [
  "## From POST to CONFIRMED, at half of the rate of POST c32",
  table(
    ["target", "orders/s", "p50 ms", "p99 ms", "orders", "unconfirmed", "failures"],
    confirmations.map((c) => [
      c.target,
      c.rate.toFixed(0),
      range(c.p50),
      range(c.p99),
      String(c.orders),
      String(c.unconfirmed),
      String(c.failures),
    ]),
  ),
  "Open loop; from the moment the request was due to the time that the shop writes to order_history, by the same clock.",
];

const stormTable = (storms: readonly Storm[]): string[] => [
  "## GET p99 in a login storm",
  table(
    ["target", "p99 ms without", "p99 ms during", "ratio", "logins", "refused logins", "failures"],
    storms.map((s) => [
      s.target,
      range(s.without),
      range(s.during),
      s.ratio.toFixed(2),
      String(s.logins),
      String(s.refusedLogins),
      String(s.failures),
    ]),
  ),
];

export function markdown(results: Results): string {
  const { cells, verdicts, confirmations, storms, idle, problems, skipped } = results;
  const summaries = cells.map((cell) => ({ cell, summary: summarise(cell) }));
  const load = (cell: Cell): string => `${cell.scenario} c${cell.connections}`;
  const parts = [
    "# Results of `npm run bench`",
    `${results.at}. ${Object.entries(results.machine)
      .map(([name, value]) => `${name}: ${value}`)
      .join("; ")}. Options: ${JSON.stringify(results.options)}.`,
    "Load generator, PostgreSQL, RabbitMQ and the measured processes share the cores. Medians of the rounds, minimum and maximum in brackets.",
    ...(problems.length > 0 ? ["## PROBLEMS", problems.map((problem) => `- ${problem}`).join("\n")] : []),
    ...(skipped.length > 0 ? ["## Not measured", skipped.map((one) => `- ${one}`).join("\n")] : []),
    "## Goals",
    '"A to B" is A divided by B, the median of the rounds.',
    table(
      ["what", "value", "floor", "goal", ""],
      verdicts.map((v) => [
        v.what,
        `${range(v.value)} ${v.unit}`,
        `${v.less ? "≤ " : "≥ "}${v.floor}`,
        `${v.less ? "≤ " : "≥ "}${v.goal}`,
        { goal: "goal reached", floor: "floor reached", below: "BELOW THE FLOOR" }[standing(v)],
      ]),
    ),
    "## Rates and latencies",
    table(
      ["load", "target", "2xx/s", "p50 ms", "p99 ms", "failures", "drain ms"],
      summaries.map(({ cell, summary: s }) => [
        load(cell),
        cell.target,
        range(s.rate),
        range(s.p50),
        range(s.p99),
        String(s.failures),
        s.drain.toFixed(0),
      ]),
    ),
    "`drain`: how long the processes were busy after the last response.",
    "## Cost: CPU ms per request",
    table(
      ["load", "target", "sum", "cores in use", "by process"],
      summaries.map(({ cell, summary }) => {
        const sum = Object.values(summary.cpu).reduce((a, b) => a + b, 0);
        const cores = (sum * summary.rate.median) / 1_000;
        return [load(cell), cell.target, sum.toFixed(3), cores.toFixed(2), describe(summary.cpu, 3)];
      }),
    ),
    "`cores in use`: CPU time per request times the measured rate. If cores are free, waiting limits the rate, not work.",
    "## Memory: maximum RSS after any load, MB",
    table(["target", "by process"], memory(cells)),
    ...(confirmations.length > 0 ? confirmationTable(confirmations) : []),
    ...(storms.length > 0 ? stormTable(storms) : []),
    "## Idle",
    table(
      ["target", "% of a core", "RSS MB"],
      idle.map((one) => [one.target, one.cpu.toFixed(1), one.rss.toFixed(0)]),
    ),
  ];
  return `${parts.join("\n\n")}\n`;
}

export function write(out: string, results: Results): void {
  mkdirSync(out, { recursive: true });
  writeFileSync(path.join(out, "results.json"), JSON.stringify(results, undefined, 1));
  const plots: string[] = [];
  const loads = new Set(results.cells.map(({ scenario, connections }) => `${scenario} c${connections}`));
  for (const load of loads) {
    const some = results.cells.filter(({ scenario, connections }) => `${scenario} c${connections}` === load);
    const all = some.map((cell) => {
      const { median, min, max } = summarise(cell).rate;
      return { label: cell.target, value: median, min, max };
    });
    const file = `${load.replace(" ", "-")}.svg`;
    writeFileSync(path.join(out, file), bars(load, "2xx responses per second", all));
    plots.push(`![${load}](${file})`);
  }
  writeFileSync(path.join(out, "results.md"), `${markdown(results)}\n## Plots\n\n${plots.join("\n\n")}\n`);
}
