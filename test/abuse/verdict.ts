import { quantiles } from "../../testkit/statistics";
import type { Counts } from "./attack";

/** Durations of requests in ms, by kind. */
export type Samples = Readonly<Record<string, readonly number[]>>;

/** The p99 of one kind of request, without and with an attack, in ms. */
export interface Comparison {
  kind: string;
  withoutMs: number;
  withMs: number;
  /** A p99 above this counts as harm. */
  limitMs: number;
}

/** A p99 counts as harm if it exceeds both `times` the p99 without the attack, and that p99 plus `moreMs`. */
interface Rule {
  times: number;
  moreMs: number;
}
const RULE: Rule = { times: 2, moreMs: 250 };
/** For requests that hash passwords, which need a core that the attack may be using. */
const SLOW_RULE: Rule = { times: 3, moreMs: 2_000 };
export const SLOW_KINDS: readonly string[] = ["login", "password"];
export const MAX_MEMORY_MB = 512;

export const isHarm = ({ withMs, limitMs }: Comparison): boolean => withMs > limitMs;

export function compare(baseline: Samples, attacked: Samples): Comparison[] {
  return Object.keys(attacked).map((kind) => {
    const { times, moreMs } = SLOW_KINDS.includes(kind) ? SLOW_RULE : RULE;
    const [withoutMs, withMs] = [p99(baseline[kind]), p99(attacked[kind])];
    return { kind, withoutMs, withMs, limitMs: Math.max(times * withoutMs, withoutMs + moreMs) };
  });
}

/** The comparison with the highest p99 relative to its limit. */
export const worst = (comparisons: readonly Comparison[]): Comparison | undefined =>
  [...comparisons].sort((a, b) => b.withMs / b.limitMs - a.withMs / a.limitMs)[0];

const p99 = (values: readonly number[] = []): number => quantiles(values, [0.99])[0] ?? 0;

/** @returns the counts that are too low: an attack that hardly reached the shop proves nothing */
export const missing = (least: Counts, counts: Counts, seconds: number): string[] =>
  Object.entries(least).flatMap(([what, perSecond]) => {
    const [count, wanted] = [counts[what] ?? 0, Math.ceil(perSecond * seconds)];
    return count < wanted ? [`the attacker got ${count} × ${what}, not ${wanted} or more: the attack did not happen`] : [];
  });

/** What was observed during one attack. */
export interface Observation {
  /** Contains all kinds of requests that the victims should send. */
  baseline: Samples;
  attacked: Samples;
  /** The number of failed requests of the victims, by kind and outcome. */
  failures: Readonly<Record<string, number>>;
  /** Peak resident memory in MB, by process. */
  memoryMb: Readonly<Record<string, number>>;
  /** Processes that exited. */
  ended: readonly string[];
  /** Log lines of level error or fatal. */
  errors: readonly string[];
  /** The attack's own expectations that were not met. */
  unmet: readonly string[];
}

/** @returns one sentence per violation; none if the shop withstood the attack */
export function violations({ baseline, attacked, failures, memoryMb, ended, errors, unmet }: Observation): string[] {
  const found = Object.entries(failures).map(([what, count]) => `${count} of the victims' requests failed: ${what}`);
  for (const comparison of compare(baseline, attacked)) {
    const { kind, withoutMs, withMs } = comparison;
    if (isHarm(comparison)) found.push(`p99 of the victims' ${kind} went from ${withoutMs.toFixed(0)} to ${withMs.toFixed(0)} ms`);
  }
  // after a failure some kinds may be missing for good reason, such as following an order that wasn't created
  const unmeasured = Object.keys(baseline).filter((kind) => (attacked[kind] ?? []).length === 0);
  if (Object.keys(failures).length === 0) found.push(...unmeasured.map((kind) => `the victims sent no ${kind}: nothing was measured`));
  for (const [name, mb] of Object.entries(memoryMb))
    if (mb > MAX_MEMORY_MB) found.push(`${name} grew to ${mb.toFixed(0)} MB, more than ${MAX_MEMORY_MB}`);
  for (const name of ended) found.push(`${name} exited`);
  if (errors.length > 0) found.push(`${errors.length} ERROR lines in the logs, such as: ${(errors[0] ?? "").slice(0, 300)}`);
  return [...found, ...unmet];
}
