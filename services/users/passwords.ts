import { availableParallelism } from "node:os";
import path from "node:path";
import { Piscina } from "piscina";
import { costOf, roundsOf } from "./bcrypt-cost";
import type { check, CheckTask, hash, HashTask, Work } from "./passwords.worker";
import { Turns, type Turn } from "./turns";

const MAX_THREADS = 4;
/** Assumed milliseconds per round, until some have been measured. */
const ASSUMED_ROUND_MS = 0.1;
/** Number of measurements kept; the median is used, so that one slow hash does not cause everybody to be refused. */
const MEASURED = 5;

/** The turn for the service's own hashes. */
export const OWN_TURN: Turn = {
  queue: "registrations",
  client: { address: "the service itself", user: undefined },
  deadline: Infinity,
  isWanted: () => true,
};

/** A password to check. */
export interface PasswordCheck {
  password: string;
  /** Undefined for an account that does not exist. */
  hashed: string | undefined;
  /** The highest cost of all stored hashes. */
  highestCost: number;
  /** It is about to be replaced, so its hash is not renewed. */
  isBeingReplaced?: boolean;
}

/** Hashes and compares passwords in NFC with bcrypt, off the event loop, in fair turns. */
export class Passwords {
  private readonly pool: Piscina;
  private readonly turns: Turns;
  /** Milliseconds per round in recent tasks, newest last. */
  private measured: number[] = [];

  constructor(private readonly cost: number) {
    const threads = Math.max(1, Math.min(MAX_THREADS, availableParallelism() - 1)); // leave a core for the event loop
    this.turns = new Turns(threads);
    this.pool = new Piscina({
      filename: path.join(__dirname, `passwords.worker${path.extname(__filename)}`),
      minThreads: 1,
      maxThreads: threads,
      // Keeps the TypeScript loader. Heap limits apply to the whole process, and workers do not accept them.
      execArgv: process.execArgv.filter((flag) => !flag.startsWith("--max-")),
    });
    // Measures the time of a hash and warms up the code before the first login.
    this.hash("a first password", OWN_TURN).catch(() => undefined /* the first login will report the error */);
  }

  /** Checks whether this turn would be refused now, before any other work. @throws as `Turns.check` */
  checkCapacity(turn: Turn): void {
    this.turns.check(turn, () => this.expectedMs(roundsOf(this.cost))); // the minimum that any task takes
  }

  async hash(password: string, turn: Turn): Promise<string> {
    const task = (): HashTask => ({ password: password.normalize("NFC"), cost: this.cost });
    return (await this.run<typeof hash>("hash", turn, roundsOf(this.cost), task)).hash;
  }

  /**
   * Whether a password is correct. Takes as long for an unknown account, and for a hash of any cost, as for the highest cost.
   * @returns if it is correct and the configured cost has changed, also a new hash of this password
   */
  async check(
    { hashed, highestCost, isBeingReplaced = false, ...given }: PasswordCheck,
    turn: Turn,
  ): Promise<{ isCorrect: boolean; hash?: string }> {
    const password = given.password.normalize("NFC");
    const cost = Math.max(this.cost, highestCost);
    const rounds = roundsOf(cost);
    const isOld = !isBeingReplaced && hashed !== undefined && costOf(hashed) !== this.cost;
    return this.run<typeof check>("check", turn, rounds, (): CheckTask => {
      const hasTimeToRenew = performance.now() + this.expectedMs(rounds + roundsOf(this.cost)) <= turn.deadline;
      return { password, hashed, cost, next: isOld && hasTimeToRenew ? { password, cost: this.cost } : undefined };
    });
  }

  close(): Promise<void> {
    return this.pool.close();
  }

  private async run<F extends (task: never) => Promise<Work>>(
    name: string,
    turn: Turn,
    rounds: number,
    task: () => Parameters<F>[0],
  ): Promise<Awaited<ReturnType<F>>> {
    const work = (): Promise<unknown> => this.pool.run(task(), { name });
    const result = (await this.turns.run(turn, () => this.expectedMs(rounds), work)) as Awaited<ReturnType<F>>; // typed by the worker's function
    this.learn(result);
    return result;
  }

  private expectedMs(rounds: number): number {
    const sorted = this.measured.toSorted((a, b) => a - b);
    return rounds * (sorted[Math.floor(sorted.length / 2)] ?? ASSUMED_ROUND_MS);
  }

  private learn({ rounds, ms }: Work): void {
    this.measured = [...this.measured, ms / rounds].slice(-MEASURED);
  }
}
