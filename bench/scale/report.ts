import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { summary, type Plan } from "./plans";

export interface Figure {
  readonly p50: number;
  readonly p99: number;
  readonly requests: number;
  /** Requests with a 503, since the statement timed out. */
  readonly failed: number;
}

export interface Measured {
  readonly size: number;
  /** By route. */
  readonly figures: Readonly<Record<string, Figure>>;
  readonly plans: Readonly<Record<string, readonly Plan[]>>;
  /** Background work: the relay and retention. */
  readonly background: readonly Plan[];
  /** `memory`: the peak memory of the shop's process meanwhile, in MB. */
  readonly audit: { readonly seconds: number; readonly memory: number; readonly ok: boolean; readonly broken: readonly string[] };
  /** Share of the updates of products that changed no index. */
  readonly hot: number;
  readonly bytes: Readonly<Record<string, number>>;
}

export const GOAL = 1.3;

/** The median and the 99th percentile of times in ms. */
export function figure(times: readonly number[]): Omit<Figure, "failed"> {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
  return { p50: at(0.5), p99: at(0.99), requests: sorted.length };
}

const formatted = (figure: Figure | undefined): string =>
  figure === undefined
    ? ""
    : `${figure.p50.toFixed(2)} / ${figure.p99.toFixed(2)}${figure.failed > 0 ? ` (${figure.failed} of ${figure.requests} FAILED)` : ""}`;
const short = (size: number): string => (size >= 1e6 ? `${size / 1e6} M` : size >= 1e3 ? `${size / 1e3} k` : String(size));
const ratioOf = (measured: readonly Measured[], route: string): number =>
  (measured.at(-1)?.figures[route]?.p50 ?? Number.NaN) / (measured[0]?.figures[route]?.p50 ?? Number.NaN);

export function markdown(measured: readonly Measured[], machine: string): string {
  const [first] = measured;
  const last = measured.at(-1);
  if (first === undefined || last === undefined) return "";
  const routes = Object.keys(first.figures);
  const over = routes.filter((route) => ratioOf(measured, route) > GOAL);
  const row = (cells: readonly string[]): string => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
    [row(head), row(head.map(() => "---")), ...rows.map(row)].join("\n");
  return [
    `# Growth: ${measured.map(({ size }) => short(size)).join(", ")} products and orders`,
    machine,
    `p50 / p99 in ms over HTTP, one request at a time. The goal is a p50 at ${short(last.size)} of at most ${GOAL} times that at ${short(first.size)}: ${
      over.length === 0 ? "all routes meet it" : `${routes.length - over.length} of ${routes.length} routes meet it`
    }.`,
    table(
      ["route", ...measured.map(({ size }) => short(size)), "ratio", `plan at ${short(last.size)}: rows by index`],
      routes.map((route) => [
        route,
        ...measured.map(({ figures }) => formatted(figures[route])),
        `${ratioOf(measured, route).toFixed(2)}${ratioOf(measured, route) > GOAL ? " !" : ""}`,
        summary(last.plans[route] ?? []),
      ]),
    ),
    "## Background work",
    table(
      ["statement", "plan"],
      last.background.map((plan) => [`${plan.service}: ${plan.sql.slice(0, 100)}`, summary([plan])]),
    ),
    "## The whole shop",
    table(
      ["", ...measured.map(({ size }) => short(size))],
      [
        [
          "audit, s",
          ...measured.map(({ audit }) => `${audit.seconds.toFixed(1)}${audit.ok ? "" : ` VIOLATIONS: ${audit.broken.join("; ")}`}`),
        ],
        ["the shop's memory meanwhile, MB", ...measured.map(({ audit }) => audit.memory.toFixed(0))],
        ["HOT updates of products", ...measured.map(({ hot }) => `${Math.round(hot * 100)} %`)],
        ...Object.keys(last.bytes).map((name) => [
          name,
          ...measured.map(({ bytes }) => `${((bytes[name] ?? 0) / 2 ** 20).toFixed(1)} MiB`),
        ]),
      ],
    ),
    "",
  ].join("\n\n");
}

/** Writes `scale.json` and `scale.md`. */
export async function write(out: string, measured: readonly Measured[], machine: string): Promise<void> {
  await mkdir(out, { recursive: true });
  await writeFile(path.join(out, "scale.json"), `${JSON.stringify({ machine, measured }, null, 1)}\n`);
  await writeFile(path.join(out, "scale.md"), markdown(measured, machine));
}
