import { setTimeout as pause } from "node:timers/promises";
import { cpuOf, difference, memoryOf } from "../testkit/process-stats";
import { spread, type Spread } from "../testkit/statistics";
import { untilQuiet } from "./idle";
import type { Generator, Measured } from "./load";
import type { Pgbench } from "./pgbench";
import type { Scenario } from "./scenarios";
import { progress } from "./setup";
import type { Target, TargetKind } from "./targets";

/** One target under one load, measured once per round. */
export interface Cell {
  scenario: string;
  connections: number;
  key: string;
  target: string;
  rounds: (Measured & { /** ms until its processes were idle again */ drain: number })[];
}

export interface Plan {
  scenarios: readonly Scenario[];
  targets: readonly { kind: TargetKind; target: Target }[];
  pgbench: Pgbench | undefined;
  rounds: number;
  seconds: number;
  warmUp: number;
}

export const LIMIT = { key: "pgbench", name: "pgbench, only the order" };
const LIMIT_CONNECTIONS = 32;

const concerns = ({ only, connections }: TargetKind, scenario: string, count: number): boolean =>
  (only === undefined || only.includes(scenario)) && (connections === undefined || connections.includes(count));

/** Measures all cells in rounds, one target at a time. The targets of a load follow each other, so that drift affects all of them. */
export async function measureAll(generator: Generator, plan: Plan): Promise<Cell[]> {
  const { scenarios, targets, pgbench, rounds, seconds, warmUp } = plan;
  const cells = new Map<string, Cell>();
  const record = (scenario: string, connections: number, key: string, target: string, measured: Measured, drain: number): void => {
    const id = `${scenario} ${connections} ${key}`;
    const cell = cells.get(id) ?? { scenario, connections, key, target, rounds: [] };
    cells.set(id, cell);
    cell.rounds.push({ ...measured, drain });
    const failed = Object.keys(measured.failures).length > 0 ? `  FAILED ${JSON.stringify(measured.failures)}` : "";
    const what = `${scenario} c${connections}`.padEnd(12);
    const { rate, p50, p99 } = measured;
    const numbers = `${rate.toFixed(0).padStart(7)}/s  p50 ${p50.toFixed(2).padStart(7)} ms  p99 ${p99.toFixed(2).padStart(7)} ms`;
    progress(`round ${cell.rounds.length}/${rounds}  ${what} ${target.padEnd(24)} ${numbers}${failed}`);
  };

  for (let round = 0; round < rounds; round++) {
    for (const scenario of scenarios) {
      const { name, connections } = scenario;
      for (const count of connections) {
        for (const { kind, target } of targets) {
          if (!concerns(kind, name, count)) continue;
          const job = { url: target.url, connections: count, warmUp, seconds, requests: await scenario.requests(target) };
          const measured = await generator.closed(job, target.roles);
          const drain = await untilQuiet(Object.values(target.roles).flat());
          record(name, count, kind.key, target.name, measured, drain);
        }
        if (name === "post" && count === LIMIT_CONNECTIONS && pgbench !== undefined)
          record(name, count, LIMIT.key, LIMIT.name, await pgbench.measure(seconds), 0);
      }
    }
  }
  return [...cells.values()];
}

export interface Idle {
  target: string;
  /** % of one core, and MB, over all its processes */
  cpu: number;
  rss: number;
}

/** The cost of the idle targets, which all run during every measurement. */
export async function measureIdle(targets: readonly Target[], seconds: number): Promise<Idle[]> {
  const roles = Object.fromEntries(targets.map((target) => [target.name, Object.values(target.roles).flat()]));
  const before = cpuOf(roles);
  await pause(seconds * 1_000);
  const cpu = difference(before, cpuOf(roles));
  const rss = memoryOf(roles);
  return targets.map(({ name }) => ({ target: name, cpu: (100 * (cpu[name] ?? 0)) / seconds, rss: rss[name] ?? 0 }));
}

export interface Summary {
  rate: Spread;
  p50: Spread;
  p99: Spread;
  /** medians of CPU ms per request, and of MB */
  cpu: Record<string, number>;
  rss: Record<string, number>;
  drain: number;
  failures: number;
}

export function summarise({ rounds }: Cell): Summary {
  const over = (of: (round: Cell["rounds"][number]) => number): Spread => spread(rounds.map(of));
  const medians = (of: "cpu" | "rss"): Record<string, number> =>
    Object.fromEntries(Object.keys(rounds[0]?.[of] ?? {}).map((role) => [role, over((round) => round[of][role] ?? 0).median]));
  return {
    rate: over(({ rate }) => rate),
    p50: over(({ p50 }) => p50),
    p99: over(({ p99 }) => p99),
    cpu: medians("cpu"),
    rss: medians("rss"),
    drain: over(({ drain }) => drain).median,
    failures: rounds.reduce((sum, { failures }) => sum + Object.values(failures).reduce((a, b) => a + b, 0), 0),
  };
}
