import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { readIfThere } from "../scripts/postgres-binaries";
import { auditShop } from "../testkit/audit";
import { rssOf } from "../testkit/process-stats";
import { sql } from "../testkit/sql";
import { spread } from "../testkit/statistics";
import { Generator, type Measured, type OpenResult } from "./load";
import { lines, type Series } from "./plot";
import { machine, table } from "./report";
import { mixture, posts } from "./scenarios";
import { progress, type Setup } from "./setup";
import { startShop, type Shop } from "./shop";
import { ONE_EACH, targetOf, type Target } from "./targets";

const EVERY_MS = 5_000;
const CONNECTIONS = 256;
/** Maximum growth of a process's peak memory after its first five minutes (in a short run, its first third). */
const GROWTH = 1.1;
const SETTLED_MINUTES = 5;

interface Sample {
  /** seconds since the start */
  at: number;
  /** MB, by process */
  rss: Record<string, number>;
  /** age of the oldest pending outbox row in seconds; 0 if there is none */
  oldest: number;
  pending: number;
}

/** Runs a mixed load for a long time and checks whether memory or queues grow. */
export async function soak(setup: Setup, out: string, minutes: number, rate: number): Promise<boolean> {
  progress("starting shop 1+1+1+1");
  const loopFile = (name: string): string => path.join(setup.logs, `${name}.loop`);
  const shop = await startShop(setup, {
    key: "shop",
    topology: ONE_EACH,
    preload: "./bench/loop-delay.js",
    nodeEnv: (name) => ({ BENCH_LOOP_FILE: loopFile(name) }),
  });
  const target: Target = { key: "shop", name: "shop 1+1+1+1", ...targetOf(shop) };
  const generator = await Generator.start(setup);
  const first: Measured = await generator.closed(
    { url: shop.url, connections: 8, warmUp: 0, seconds: 2, requests: posts(target) },
    target.roles,
  );
  if (first.requests < 100) throw new Error("the shop accepts no orders");

  progress(`${rate} requests per second for ${minutes} minutes`);
  const since = Date.now();
  const running: { result?: OpenResult; error?: unknown } = {};
  const phases = [{ rate, seconds: minutes * 60 }];
  const done = generator.open({ url: shop.url, phases, connections: CONNECTIONS, requests: await mixture(target) }).then(
    (result) => (running.result = result),
    (error: unknown) => (running.error = error),
  );
  const samples: Sample[] = [];
  while (running.result === undefined && running.error === undefined) {
    samples.push(await sample(shop, since));
    const { at, oldest, pending, rss } = samples.at(-1) ?? { at: 0, oldest: 0, pending: 0, rss: {} };
    if (samples.length % 12 === 0)
      progress(
        `${at.toFixed(0)} s: RSS ${Object.values(rss).map(Math.round).join(" ")} MB, outbox ${pending}, oldest ${oldest.toFixed(1)} s`,
      );
    await Promise.race([done, pause(EVERY_MS)]);
  }
  if (running.result === undefined) throw running.error;
  const wrong = await auditShop(shop);
  const delays = Object.fromEntries(shop.nodes.map(({ name }) => [name, loopDelays(readIfThere(loopFile(name)), since)]));
  return writeReport(out, { minutes, rate, samples, delays, result: running.result, wrong });
}

async function sample(shop: Shop, since: number): Promise<Sample> {
  const [outbox] = await sql<{ pending: number; oldest: number }>(
    shop.databases.orders,
    `select count(*)::int as pending, coalesce(extract(epoch from now() - min(created_at)), 0)::float8 as oldest from outbox where state = 'PENDING'`,
  );
  const rss = Object.fromEntries(shop.nodes.map(({ name, pid }) => [name, rssOf(pid)]));
  return { at: (Date.now() - since) / 1_000, rss, oldest: outbox?.oldest ?? 0, pending: outbox?.pending ?? 0 };
}

/** s, mean ms, max ms */
const loopDelays = (file: string, since: number): [number, number, number][] =>
  file
    .split("\n")
    .filter(Boolean)
    .map((line) => line.split(" ").map(Number))
    .map(([at = 0, mean = 0, max = 0]): [number, number, number] => [(at - since) / 1_000, mean, max])
    .filter(([at]) => at >= 0);

interface Soak {
  minutes: number;
  rate: number;
  samples: Sample[];
  delays: Record<string, [number, number, number][]>;
  result: OpenResult;
  wrong: string[];
}

function writeReport(out: string, soaked: Soak): boolean {
  const { minutes, rate, samples, delays, result, wrong } = soaked;
  const settled = 60 * Math.min(SETTLED_MINUTES, minutes / 3);
  const end = samples.at(-1)?.at ?? 0;
  const growths = Object.keys(samples[0]?.rss ?? {}).map((name) => {
    // Peaks, since memory varies by a third between garbage collections.
    const peak = (from: number, to: number): number =>
      Math.max(...samples.filter(({ at }) => at >= from && at <= to).map(({ rss }) => rss[name] ?? 0));
    const [early, late] = [peak(0, settled), peak(end - settled, end)];
    return { name, early, late, growth: late / early };
  });
  const failures = Object.values(result.failures).reduce((a, b) => a + b, 0);
  const clean = failures === 0 && wrong.length === 0 && growths.every(({ growth }) => growth <= GROWTH);
  const unsent = result.seconds.reduce((sum, second) => sum + second.unsent, 0);
  const p99 = spread(result.seconds.map(({ okP99 }) => okP99));
  const text = `# Soak

Shop 1+1+1+1, ${rate} mixed requests per second for ${minutes} minutes; the median of each second's p99 is ${p99.median.toFixed(1)} ms, the worst
${p99.max.toFixed(0)} ms. ${failures} requests failed ${JSON.stringify(result.failures)}, ${unsent} were not sent because no connection was free.
The oldest pending outbox row was ${Math.max(...samples.map(({ oldest }) => oldest)).toFixed(1)} s old.

${table(
  ["process", `peak RSS, MB, first ${(settled / 60).toFixed(1)} min`, "the last", "growth", "loop delay: median of means, worst, ms"],
  growths.map(({ name, early, late, growth }) => [
    name,
    early.toFixed(0),
    late.toFixed(0),
    `${(100 * (growth - 1)).toFixed(1)} %${growth > GROWTH ? " TOO MUCH" : ""}`,
    `${spread((delays[name] ?? []).map(([, mean]) => mean)).median.toFixed(1)}, ${Math.max(0, ...(delays[name] ?? []).map(([, , max]) => max)).toFixed(0)}`,
  ]),
)}

${wrong.length === 0 ? "The audit afterwards is clean." : `The audit afterwards: ${wrong.join("; ")}`}
Goal: no process grows by more than ${Math.round(100 * (GROWTH - 1))} % after its first ${(settled / 60).toFixed(1)} minutes: ${clean ? "reached" : "NOT REACHED"}
`;
  mkdirSync(out, { recursive: true });
  const { orders: _orders, ...rest } = result;
  writeFileSync(path.join(out, "soak.json"), JSON.stringify({ machine: machine(), ...soaked, result: rest }, undefined, 1));
  writeFileSync(path.join(out, "soak.md"), text);
  const names = growths.map(({ name }) => name);
  const rss: Series[] = names.map((name) => ({ name, points: samples.map((one): [number, number] => [one.at, one.rss[name] ?? 0]) }));
  const max: Series[] = names.map((name) => ({ name, points: (delays[name] ?? []).map(([at, , worst]): [number, number] => [at, worst]) }));
  const waiting: Series[] = [
    { name: "PENDING rows", points: samples.map(({ at, pending }): [number, number] => [at, pending]) },
    { name: "oldest, s", points: samples.map(({ at, oldest }): [number, number] => [at, oldest]) },
  ];
  writeFileSync(path.join(out, "soak-rss.svg"), lines("Resident memory", rss, { x: "seconds", y: "MB" }));
  writeFileSync(path.join(out, "soak-loop.svg"), lines("Maximum event loop delay per five seconds", max, { x: "seconds", y: "ms" }));
  writeFileSync(path.join(out, "soak-waiting.svg"), lines("Pending outbox rows", waiting, { x: "seconds", y: "" }));
  console.log(text);
  return clean;
}
