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

/** What a gateway had counted at one moment. */
export interface Counted extends GatewayActivity {
  /** By `performance.now()`. */
  at: number;
}

const COUNTS = ["requests", "refused", "failed"] as const;

/**
 * The rates of all gateways, each between its first and its last reading. One with a single reading has no rates yet, and neither has one that
 * was restarted in between, so that it counts less than before.
 * @param readings of each gateway, oldest first
 * @returns null if no gateway has rates
 */
export function ratesOf(readings: Iterable<readonly Counted[]>): RequestRates | null {
  const rates = { requests: 0, refused: 0, failed: 0 };
  const durations = new Array<number>(BOUNDS_MS.length + 1).fill(0);
  let in_progress = 0;
  let isKnown = false;
  for (const ofOne of readings) {
    const [first, last] = [ofOne[0], ofOne.at(-1)];
    if (first === undefined || last === undefined) continue;
    in_progress += last.in_progress;
    const grown = durations.map((_, i) => (last.durations[i] ?? 0) - (first.durations[i] ?? 0));
    if (last.at <= first.at || COUNTS.some((name) => last[name] < first[name]) || grown.some((count) => count < 0)) continue;
    isKnown = true;
    for (const name of COUNTS) rates[name] += ((last[name] - first[name]) * 1_000) / (last.at - first.at);
    for (const [i, count] of grown.entries()) durations[i] = (durations[i] ?? 0) + count;
  }
  if (!isKnown) return null;
  return {
    per_second: rounded(rates.requests),
    refused_per_second: rounded(rates.refused),
    failed_per_second: rounded(rates.failed),
    in_progress,
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
