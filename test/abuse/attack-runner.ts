import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { messageOf } from "../../testkit/error-message";
import { testId } from "../../testkit/ids";
import { cpuOf, difference } from "../../testkit/process-stats";
import { eventually } from "../../testkit/until";
import type { Attack, AttackContext, AttackOutcome, Counts } from "./attack";
import type { Target } from "./attacker";
import type { Infrastructure } from "./infrastructure";
import { takeReadings } from "./readings";
import { compare, isHarm, MAX_MEMORY_MB, missing, SLOW_KINDS, violations, worst, type Comparison, type Samples } from "./verdict";
import type { VictimsJob, VictimsResult } from "./victims.worker";
import { Watch } from "./watch";
import { Worker } from "./worker";

export type Victims = Worker<VictimsJob, VictimsResult>;
export const startVictims = (): Promise<Victims> => Worker.start<VictimsJob, VictimsResult>(path.join(__dirname, "victims.worker.ts"));

/** The seeded products, which victims read and order. */
const PRODUCTS = Array.from({ length: 1_000 }, (_, n) => testId(n + 1));
/** Kinds of requests that write; a login writes a session. */
const WRITES = ["create", "order", "login", "password"];
const SETTLE_MS = 1_000;
/** Maximum number of windows without an attack to wait for recovery; more than one is a violation. */
const MAX_WINDOWS = 10;

export interface Times {
  attack: number;
  recovery: number;
}

/** The result of one attack. */
export interface AttackResult {
  attack: Attack;
  counts: Counts;
  victims: VictimsResult;
  comparisons: readonly Comparison[];
  memoryMb: Readonly<Record<string, number>>;
  violations: string[];
}

/** Whether the only violations are p99s above their limits. */
export const isSlowOnly = ({ comparisons, violations }: AttackResult): boolean =>
  violations.length > 0 && violations.length === comparisons.filter(isHarm).length;

export const worstOf = ({ comparisons }: AttackResult, isSlow: boolean): Comparison | undefined =>
  worst(comparisons.filter(({ kind }) => SLOW_KINDS.includes(kind) === isSlow));

const writesOf = ({ samples }: VictimsResult): number => WRITES.reduce((sum, kind) => sum + (samples[kind] ?? []).length, 0);

export class AttackRunner {
  constructor(
    private readonly infrastructure: Infrastructure,
    private readonly context: AttackContext,
    private readonly victims: Victims,
    private readonly times: Times,
    private readonly seed: number,
  ) {}

  /** Measures the victims without an attack. */
  measureVictims(seconds: number, changesPassword = false): Promise<VictimsResult> {
    return this.use(seconds, { changesPassword });
  }

  private use(seconds: number, { changesPassword = false, products = PRODUCTS }: Partial<VictimsJob>): Promise<VictimsResult> {
    const { shop, accounts } = this.context;
    return this.victims.run({ url: shop.url, accounts: accounts.victims, seconds, products, changesPassword });
  }

  /** Runs an attack. @param usual the victims' samples without an attack */
  async run(attack: Attack, usual: Samples, wantedSeconds = this.times.attack): Promise<AttackResult> {
    const { shop, accounts } = this.context;
    // password changes slow down all logins, since they share the hashing threads
    const baseline = attack.changesPassword === true ? (await this.measureVictims(wantedSeconds / 2, true)).samples : usual;
    const seconds = Math.max(wantedSeconds, attack.minSeconds ?? 0);
    const prepared = (await attack.prepare?.(this.context)) ?? {};
    const attacker = await Worker.start<Target, { counts: Counts }>(path.join(__dirname, "attack.worker.ts"));
    const before = await takeReadings(shop);
    const watch = new Watch(shop.processes, () => {
      attacker.kill();
    });
    const target: Target = {
      row: attack.row,
      url: shop.url,
      seconds,
      seed: this.seed,
      accounts: accounts.attackers,
      victims: accounts.victims.map(({ email }) => email),
      prepared,
    };
    const [victims, { counts, failure, busyCores }] = await Promise.all([
      this.use(seconds, attack),
      attacker.run(target).then(
        async ({ counts }) => ({ counts, failure: undefined, busyCores: await this.busyCores() }),
        (error: unknown) => ({ counts: {}, failure: messageOf(error), busyCores: 0 }),
      ),
    ]);
    attacker.kill();
    const unmet: string[] = [];
    if (watch.isHopeless) unmet.push("the attack was stopped, and the shop restarted");
    else if (failure !== undefined) unmet.push(`the attack itself failed: ${failure}`);
    else {
      const outcome = { counts, victims: victims.requests, victimsWrites: writesOf(victims), lines: watch.lines(), busyCores, before };
      unmet.push(...missing(attack.least, counts, seconds), ...(await this.expectations(attack, outcome)));
    }
    const late = watch.isHopeless ? [] : await this.recover(baseline);
    watch.stop();
    const { memoryMb, ended } = watch;
    const observation = { baseline, attacked: victims.samples, failures: victims.failures, memoryMb, ended, errors: watch.errors(), unmet };
    // this attack's memory must not count against the next one
    if (watch.isHopeless || Object.values(memoryMb).some((mb) => mb > MAX_MEMORY_MB)) {
      await shop.restart();
      await this.recover(baseline);
    }
    return {
      attack,
      counts,
      victims,
      comparisons: compare(baseline, victims.samples),
      memoryMb,
      violations: [...violations(observation), ...late],
    };
  }

  private async expectations(attack: Attack, outcome: Omit<AttackOutcome, "after">): Promise<string[]> {
    try {
      return attack.expect?.({ ...outcome, after: await takeReadings(this.context.shop) }) ?? [];
    } catch (error) {
      return [`the expectations can't be checked: ${messageOf(error)}`];
    }
  }

  /** Measures CPU use between one and two seconds from now. */
  private async busyCores(): Promise<number> {
    const roles = { shop: this.context.shop.processes.map(({ pid }) => pid) };
    await pause(1_000);
    const start = cpuOf(roles, this.infrastructure.postmaster);
    await pause(1_000);
    const used = difference(start, cpuOf(roles, this.infrastructure.postmaster));
    return Object.values(used).reduce((sum, seconds) => sum + seconds, 0);
  }

  /** Waits until the victims are served normally again. @returns violations, if that takes longer than the first window */
  private async recover(baseline: Samples): Promise<string[]> {
    await pause(SETTLE_MS);
    const since = performance.now();
    let first: string[] = [];
    let windows = 0;
    const isWell = async (): Promise<boolean> => {
      const { samples, failures } = await this.measureVictims(this.times.recovery);
      const found = [
        ...Object.entries(failures).map(([what, count]) => `${count} × ${what}`),
        ...compare(baseline, samples).flatMap((one) => (isHarm(one) ? `p99 of ${one.kind} ${one.withMs.toFixed(0)} ms` : [])),
      ];
      if (windows++ === 0) first = found;
      return found.length === 0;
    };
    try {
      await eventually("the victims are served normally again", isWell, MAX_WINDOWS * this.times.recovery * 1_000, 0);
    } catch {
      return [`no recovery after ${((performance.now() - since) / 1_000).toFixed(0)} s: ${first.join("; ")}`];
    }
    if (first.length === 0) return [];
    return [`recovery took ${((performance.now() - since) / 1_000).toFixed(0)} s: ${first.join("; ")}`];
  }
}
