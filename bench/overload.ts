import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { auditShop } from "../testkit/audit";
import { spread } from "../testkit/statistics";
import { untilQuiet } from "./idle";
import { Generator, type OpenResult, type Second } from "./load";
import { lines } from "./plot";
import { machine, table } from "./report";
import { gets, posts } from "./scenarios";
import { progress, type Setup } from "./setup";
import { startShop } from "./shop";
import { ONE_EACH, targetOf, type Target } from "./targets";

/** Seconds at half load, at four times the peak, and at half load again. */
const [BEFORE, DURING, AFTER] = [5, 20, 10];
const TIMES = 4;
/** Connections of the closed loops that determine the peak. */
const PEAK = [32, 128];
const GOODPUT = 0.8;
const REFUSED_MS = 100;
const RECOVERED = 0.95;
/** Seconds. */
const RECOVERY = 2;

interface Overload {
  what: string;
  peak: number;
  /** share of the peak: the median of the overload's seconds, without the first */
  goodput: number;
  /** p99 of the time until a refusal, ms: the median of those seconds, and the maximum */
  refusal: number;
  worstRefusal: number;
  /** requests due per second, and the share that was sent because the generator had a free connection */
  offered: number;
  sent: number;
  /** seconds after the overload until nearly all requests get 2xx; undefined if not within the measured time */
  recovery: number | undefined;
  other: number;
  broken: number;
  result: OpenResult;
}

/** Measures the shop's behaviour with four times as many requests as it can serve. */
export async function overload(setup: Setup, out: string, connections: number): Promise<boolean> {
  progress("starting shop 1+1+1+1");
  const shop = await startShop(setup, { key: "shop", topology: ONE_EACH });
  const target: Target = { key: "shop", name: "shop 1+1+1+1", ...targetOf(shop) };
  const generator = await Generator.start(setup);
  const all = [await overloadBy("GET", generator, target, connections), await overloadBy("POST", generator, target, connections)];
  const wrong = await auditShop(shop);

  mkdirSync(out, { recursive: true });
  for (const one of all) writeFileSync(path.join(out, `overload-${one.what.toLowerCase()}.svg`), plot(one));
  const text = report(all, wrong, connections);
  writeFileSync(path.join(out, "overload.json"), JSON.stringify({ machine: machine(), all, wrong }, undefined, 1));
  writeFileSync(path.join(out, "overload.md"), text);
  console.log(text);
  return wrong.length === 0 && all.every((one) => failings(one).length === 0);
}

async function overloadBy(what: "GET" | "POST", generator: Generator, target: Target, connections: number): Promise<Overload> {
  const requests = what === "GET" ? gets() : posts(target);
  let peak = 0;
  for (const few of PEAK) {
    const { rate } = await generator.closed({ url: target.url, connections: few, warmUp: 2, seconds: 4, requests }, target.roles);
    progress(`${what} c${few}: ${rate.toFixed(0)}/s`);
    peak = Math.max(peak, rate);
  }
  await untilQuiet(Object.values(target.roles).flat());
  progress(`${what}: half of the peak, ${TIMES} times the peak, half of the peak`);
  const half = { rate: peak / 2, seconds: BEFORE };
  const phases = [half, { rate: peak * TIMES, seconds: DURING }, { ...half, seconds: AFTER }];
  const result = await generator.open({ url: target.url, phases, connections, requests });
  await untilQuiet(Object.values(target.roles).flat());

  const during = result.seconds.slice(BEFORE + 1, BEFORE + DURING);
  const after = result.seconds.slice(BEFORE + DURING);
  const median = (of: (second: Second) => number): number => spread(during.map(of)).median;
  const recovered = after.findIndex(({ ok, due }) => ok >= RECOVERED * due);
  return {
    what,
    peak,
    goodput: median(({ ok }) => ok) / peak,
    refusal: median(({ refusedP99 }) => refusedP99),
    worstRefusal: Math.max(...during.map(({ refusedP99 }) => refusedP99)),
    offered: median(({ due }) => due),
    sent: 1 - during.reduce((sum, { unsent }) => sum + unsent, 0) / during.reduce((sum, { due }) => sum + due, 0),
    recovery: recovered < 0 ? undefined : recovered,
    other: result.seconds.reduce((sum, { other }) => sum + other, 0),
    broken: result.seconds.reduce((sum, { broken }) => sum + broken, 0),
    result,
  };
}

function failings({ goodput, refusal, recovery, other, broken }: Overload): string[] {
  return [
    ...(goodput < GOODPUT ? ["goodput"] : []),
    ...(refusal > REFUSED_MS ? ["refusals"] : []),
    ...(recovery === undefined || recovery > RECOVERY ? ["recovery"] : []),
    ...(other + broken > 0 ? ["other responses, or none"] : []),
  ];
}

function report(all: readonly Overload[], wrong: readonly string[], connections: number): string {
  const rows = all.map((one) => [
    one.what,
    one.peak.toFixed(0),
    one.offered.toFixed(0),
    `${(100 * one.sent).toFixed(0)} %`,
    `${(100 * one.goodput).toFixed(0)} %`,
    `${one.refusal.toFixed(0)} (worst ${one.worstRefusal.toFixed(0)})`,
    one.recovery === undefined ? `not in ${AFTER} s` : `${one.recovery} s`,
    `${one.other} / ${one.broken}`,
    failings(one).join(", ") || "reached",
  ]);
  const head = [
    "",
    "peak/s",
    "offered/s",
    "sent",
    "goodput of peak",
    "503 or 429 after, p99 ms",
    "recovery",
    "other / no response",
    "goals",
  ];
  return `# Overload

Shop 1+1+1+1; an open loop of ${TIMES} times the measured peak for ${DURING} s over ${connections} connections from eight addresses, half
of the peak before and after. The generator shares the cores with the shop. A request is not sent if no connection is free. Goals: goodput at
least ${100 * GOODPUT} % of the peak, refusals within ${REFUSED_MS} ms (p99, median of the seconds), recovery within ${RECOVERY} s.

${table(head, rows)}

${wrong.length === 0 ? "The audit afterwards is clean." : `The audit afterwards: ${wrong.join("; ")}`}
`;
}

function plot({ what, peak, result }: Overload): string {
  const over = (of: (second: Second) => number) => result.seconds.map((second, n): [number, number] => [n, of(second)]);
  return lines(
    `${what}: half load, ${TIMES} times the peak, half load`,
    [
      { name: "2xx/s", points: over(({ ok }) => ok) },
      { name: "503 and 429/s", points: over(({ refused }) => refused) },
      { name: "their p99, µs", points: over(({ refusedP99 }) => 1_000 * refusedP99) },
      { name: "measured peak", points: over(() => peak) },
    ],
    {
      x: "seconds",
      y: "per second",
      marks: [
        { at: BEFORE, label: "overload" },
        { at: BEFORE + DURING, label: "half load" },
      ],
    },
  );
}
