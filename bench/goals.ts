import { spread, type Spread } from "../testkit/statistics";
import type { Confirmation, Storm } from "./latency";
import { LIMIT, type Cell } from "./table";

export interface Verdict {
  what: string;
  value: Spread;
  unit: "×" | "ms";
  floor: number;
  goal: number;
  /** Whether smaller values are better. */
  less: boolean;
}

/** Goals over RabbitMQ apply to one process per service; the larger topology is reported as well. */
const OVER_RABBITMQ = ["shop", "shop2"];

interface Ratio {
  what: string;
  scenario: string;
  /** the ratio is `of` divided by `to` */
  of: string;
  to: string;
  /** connections, floor, goal */
  goals: readonly (readonly [number, number, number])[];
  /** connections of the second, if fixed */
  toConnections?: number;
}

const overRabbit = (ratio: Omit<Ratio, "of">): Ratio[] => OVER_RABBITMQ.map((of) => ({ ...ratio, of }));

const RATIOS: readonly Ratio[] = [
  // prettier-ignore
  ...overRabbit({ what: "GET to raw", scenario: "get", to: "raw", goals: [[32, 0.9, 1.2], [128, 1.6, 2]] }),
  // prettier-ignore
  ...overRabbit({ what: "GET to peer", scenario: "get", to: "peer", goals: [[32, 1.5, 2], [128, 2.5, 3]] }),
  // prettier-ignore
  { what: "GET to raw", scenario: "get", of: "one", to: "raw", goals: [[32, 1.4, 2], [128, 2.2, 3]] },
  // prettier-ignore
  ...overRabbit({ what: "POST to peer", scenario: "post", to: "peer", goals: [[32, 3, 4], [128, 6, 9]] }),
  // prettier-ignore
  ...overRabbit({ what: "POST to pgbench c32", scenario: "post", to: LIMIT.key, toConnections: 32, goals: [[32, 0.17, 0.25], [128, 0.35, 0.5]] }),
  // prettier-ignore
  { what: "POST to pgbench c32", scenario: "post", of: "one", to: LIMIT.key, toConnections: 32, goals: [[32, 0.33, 0.4], [128, 0.6, 0.75]] },
];

/** Ratios per round, since the same rounds of both were measured close together. */
function pairs(first: Cell | undefined, second: Cell | undefined, of: "rate" | "p50"): Spread | undefined {
  if (first === undefined || second === undefined) return undefined;
  return spread(first.rounds.map((round, n) => round[of] / (second.rounds[n]?.[of] ?? NaN)));
}

export function judge(cells: readonly Cell[], confirmations: readonly Confirmation[], storms: readonly Storm[]): Verdict[] {
  const cell = (scenario: string, connections: number, key: string): Cell | undefined =>
    cells.find((one) => one.scenario === scenario && one.connections === connections && one.key === key);
  const verdicts: Verdict[] = [];
  for (const { what, scenario, of, to, goals, toConnections } of RATIOS) {
    for (const [connections, floor, goal] of goals) {
      const first = cell(scenario, connections, of);
      const value = pairs(first, cell(scenario, toConnections ?? connections, to), "rate");
      if (value !== undefined)
        verdicts.push({ what: `${what}, c${connections}: ${first?.target ?? of}`, value, unit: "×", floor, goal, less: false });
    }
  }
  for (const [of, to] of [["shop", "unbatched"] as const, ["one", "unbatched1"] as const]) {
    for (const scenario of ["get", "post"]) {
      const first = cell(scenario, 1, of);
      const value = pairs(first, cell(scenario, 1, to), "p50");
      const what = `${scenario.toUpperCase()} p50 to unbatched, c1: ${first?.target ?? of}`;
      if (value !== undefined) verdicts.push({ what, value, unit: "×", floor: 1.1, goal: 1.05, less: true });
    }
  }
  for (const { target, p50, p99 } of confirmations) {
    verdicts.push({ what: `POST→CONFIRMED p50, half load: ${target}`, value: p50, unit: "ms", floor: 80, goal: 60, less: true });
    verdicts.push({ what: `POST→CONFIRMED p99, half load: ${target}`, value: p99, unit: "ms", floor: 150, goal: 150, less: true });
  }
  for (const { target, ratio } of storms) {
    const value = { median: ratio, min: ratio, max: ratio };
    verdicts.push({ what: `GET p99 with to without a login storm: ${target}`, value, unit: "×", floor: 2, goal: 2, less: true });
  }
  return verdicts;
}

export function standing({ value: { median }, floor, goal, less }: Verdict): "goal" | "floor" | "below" {
  const reaches = (bound: number): boolean => (less ? median <= bound : median >= bound);
  return reaches(goal) ? "goal" : reaches(floor) ? "floor" : "below";
}
