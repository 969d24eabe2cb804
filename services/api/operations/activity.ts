import type { GatewayActivity, RequestRates } from "../../../contracts/operations";

/** Upper bounds of the classes of durations, in ms; those of the last class are longer. */
export const BOUNDS_MS = [1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200, 300, 500, 800, 1_200, 2_000, 3_000, 5_000] as const;

/** Counts the requests of one gateway since its start. */
export class Activity {
  private requests = 0;
  private refused = 0;
  private failed = 0;
  private readonly durations: number[] = new Array<number>(BOUNDS_MS.length + 1).fill(0);

  /** @param inProgress the number of requests that are in progress or queued */
  constructor(private readonly inProgress: () => number) {}

  note(status: number, tookMs: number): void {
    this.requests++;
    if (status === 429) this.refused++;
    else if (status >= 500) this.failed++;
    const index = BOUNDS_MS.findIndex((bound) => tookMs <= bound);
    const place = index === -1 ? BOUNDS_MS.length : index;
    this.durations[place] = (this.durations[place] ?? 0) + 1;
  }

  read(): GatewayActivity {
    const { requests, refused, failed, durations } = this;
    return { requests, refused, failed, durations: [...durations], in_progress: this.inProgress() };
  }
}

/** What the gateways had counted at one moment, by node. */
export interface Counted {
  /** By `performance.now()`. */
  at: number;
  gateways: ReadonlyMap<string, GatewayActivity>;
}

/** Rates between two moments. A gateway that was not there at the first one, or has been restarted, counts from the second one on. */
export function ratesBetween(first: Counted, last: Counted): RequestRates {
  const seconds = Math.max(0.001, (last.at - first.at) / 1_000);
  const sums = { requests: 0, refused: 0, failed: 0, in_progress: 0 };
  const durations = new Array<number>(BOUNDS_MS.length + 1).fill(0);
  for (const [node, now] of last.gateways) {
    sums.in_progress += now.in_progress;
    const before = first.gateways.get(node);
    if (before === undefined || before.requests > now.requests) continue;
    for (const name of ["requests", "refused", "failed"] as const) sums[name] += now[name] - before[name];
    for (const [i, count] of now.durations.entries())
      if (i < durations.length) durations[i] = (durations[i] ?? 0) + count - (before.durations[i] ?? 0);
  }
  return {
    per_second: rounded(sums.requests / seconds),
    refused_per_second: rounded(sums.refused / seconds),
    failed_per_second: rounded(sums.failed / seconds),
    in_progress: sums.in_progress,
    p50_ms: quantile(durations, 0.5),
    p99_ms: quantile(durations, 0.99),
  };
}

const rounded = (rate: number): number => Math.round(rate * 10) / 10;

/** The upper bound of the class with the quantile; null without requests. Durations above the last bound count as that. */
function quantile(durations: readonly number[], q: number): number | null {
  const total = durations.reduce((sum, count) => sum + count, 0);
  if (total === 0) return null;
  let left = q * total;
  const index = durations.findIndex((count) => (left -= count) <= 0);
  return BOUNDS_MS[index] ?? BOUNDS_MS[BOUNDS_MS.length - 1] ?? null;
}
