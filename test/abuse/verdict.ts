import { quantiles } from "../../bench/statistics";
import type { Counts } from "./attack";

/** Milliseconds that requests took, by kind. */
export type Samples = Readonly<Record<string, readonly number[]>>;

/** The p99 of one kind of request, without and with an attack, in ms. */
export interface Comparison {
  kind: string;
  withoutMs: number;
  withMs: number;
  /** Above this it counts as harm. */
  limitMs: number;
}

/** A p99 is harm above both so many times the p99 without the attack, and so many ms more than it. */
interface Rule {
  times: number;
  moreMs: number;
}
const RULE: Rule = { times: 2, moreMs: 250 };
/** Hashes passwords: waits for a core that the attack may share. */
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

/** The comparison that is closest to its limit, or furthest beyond it. */
export const worst = (comparisons: readonly Comparison[]): Comparison | undefined =>
  [...comparisons].sort((a, b) => b.withMs / b.limitMs - a.withMs / a.limitMs)[0];

const p99 = (values: readonly number[] = []): number => quantiles(values, [0.99])[0] ?? 0;

/** @returns what an attacker got too little of: one that is refused at the door shows nothing */
export const missing = (least: Counts, counts: Counts, seconds: number): string[] =>
  Object.entries(least).flatMap(([what, perSecond]) => {
    const [count, wanted] = [counts[what] ?? 0, Math.ceil(perSecond * seconds)];
    return count < wanted ? [`the attacker got ${count} × ${what}, not ${wanted} or more: the attack did not happen`] : [];
  });

/** What was observed during one attack. */
export interface Observation {
  /** Of the kinds of requests that the victims were to send. */
  baseline: Samples;
  attacked: Samples;
  /** The victims' requests that failed: how often, by kind and outcome. */
  failures: Readonly<Record<string, number>>;
  /** Resident memory at its peak, in MB, by process. */
  memoryMb: Readonly<Record<string, number>>;
  /** Processes that ended. */
  ended: readonly string[];
  /** Lines of level error or fatal in the logs. */
  errors: readonly string[];
  /** What the attack itself expected and did not see. */
  unmet: readonly string[];
}

/** @returns what did not hold, a sentence each; none where the row is held */
export function violations({ baseline, attacked, failures, memoryMb, ended, errors, unmet }: Observation): string[] {
  const found = Object.entries(failures).map(([what, count]) => `${count} of the victims' requests failed: ${what}`);
  for (const comparison of compare(baseline, attacked)) {
    const { kind, withoutMs, withMs } = comparison;
    if (isHarm(comparison)) found.push(`p99 of the victims' ${kind} went from ${withoutMs.toFixed(0)} to ${withMs.toFixed(0)} ms`);
  }
  // after a failure it may be that there was nothing to send: an order that was not made is not followed
  const unmeasured = Object.keys(baseline).filter((kind) => (attacked[kind] ?? []).length === 0);
  if (Object.keys(failures).length === 0) found.push(...unmeasured.map((kind) => `the victims sent no ${kind}: nothing was measured`));
  for (const [name, mb] of Object.entries(memoryMb))
    if (mb > MAX_MEMORY_MB) found.push(`${name} grew to ${mb.toFixed(0)} MB, more than ${MAX_MEMORY_MB}`);
  for (const name of ended) found.push(`${name} ended`);
  if (errors.length > 0) found.push(`${errors.length} ERROR lines in the logs, such as: ${(errors[0] ?? "").slice(0, 300)}`);
  return [...found, ...unmet];
}
