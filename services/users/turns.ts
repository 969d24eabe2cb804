import { problem, tooLate } from "../../broker/errors";
import { FairQueue, overShare, shareOf, type Client } from "../../mixins/fair-queue";

export type Line = "logins" | "registrations";

/** Who wants a password hashed, and until when. */
export interface Turn {
  readonly line: Line;
  readonly client: Client;
  /** By `performance.now()`. */
  readonly deadline: number;
  /** Asked before the work is started: whether the caller is still there. */
  readonly isWanted: () => boolean;
  /** Set once work was started in this turn. */
  isUsed?: true;
}

interface Waiting {
  readonly turn: Turn;
  readonly expectedMs: () => number;
  start(): void;
  drop(error: Error): void;
}

/** A bound for memory; deadlines allow far fewer at a usual cost. */
const MAX_WAITING = 256;
/** Seconds after which one that found too many others may try again. */
const RETRY_AFTER_SECONDS = 2;

const tooMany = () => problem("SERVICE_UNAVAILABLE", "too many passwords are being hashed", { retryAfter: RETRY_AFTER_SECONDS });

/**
 * The order in which passwords get a thread. Logins and registrations have a queue each and take turns while both wait, so
 * neither can make the other wait for more than one hash; within a queue turns rotate among clients. While nobody else
 * waits, one client may use all threads. Nothing waits that can't be served by its deadline, as far as can be foreseen.
 */
export class Turns {
  private readonly queues = { logins: new FairQueue<Waiting>(MAX_WAITING), registrations: new FairQueue<Waiting>(MAX_WAITING) };
  private running = 0;
  private last: Line = "registrations";

  constructor(private readonly threads: number) {}

  /** Whether work would be refused now; before anything else is done for it. @throws as `run` does at once */
  check(turn: Turn, expectedMs: () => number): void {
    // An idle thread tries what has any time left: what is expected may be wrong, and only work corrects it.
    if (this.hasIdleThread) {
      if (!turn.isWanted() || performance.now() > turn.deadline) throw tooLate();
      return;
    }
    const queue = this.queues[turn.line];
    const { address } = turn.client;
    const hashes = ((turn.deadline - performance.now()) / expectedMs()) * this.threads;
    if (queue.sizeOf(address) >= shareOf(Math.min(hashes, MAX_WAITING))) throw overShare();
    const before = queue.turnsBefore(address);
    const ofOthers = Math.min(this.queues[otherThan(turn.line)].size, before + 1);
    if (before + ofOthers + this.running / 2 + this.threads > hashes) throw tooMany(); // what runs is taken for half done
  }

  /**
   * Does the work when its turn comes.
   * @param expectedMs how long it will take, as far as is known when asked
   * @throws TOO_MANY_REQUESTS where this address waits for a quarter of what can be served, SERVICE_UNAVAILABLE at once where
   * the deadline can't be met, or later where it could not be
   */
  async run<T>(turn: Turn, expectedMs: () => number, work: () => Promise<T>): Promise<T> {
    this.check(turn, expectedMs);
    if (this.hasIdleThread) this.running++;
    else await this.wait(turn, expectedMs);
    this.last = turn.line;
    turn.isUsed = true;
    try {
      return await work();
    } finally {
      this.running--;
      this.startNext();
    }
  }

  private get hasIdleThread(): boolean {
    return this.running < this.threads && this.queues.logins.size + this.queues.registrations.size === 0;
  }

  private wait(turn: Turn, expectedMs: () => number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.queues[turn.line].force(turn.client, { turn, expectedMs, start: resolve, drop: reject });
    });
  }

  private startNext(): void {
    while (this.running < this.threads) {
      const next = this.take();
      if (next === undefined) return;
      const { deadline, isWanted } = next.turn;
      if (isWanted() && performance.now() + next.expectedMs() <= deadline) {
        this.running++;
        this.last = next.turn.line;
        next.start();
      } else next.drop(tooLate());
    }
  }

  private take(): Waiting | undefined {
    const line = otherThan(this.last);
    return this.queues[line].take() ?? this.queues[this.last].take();
  }
}

const otherThan = (line: Line): Line => (line === "logins" ? "registrations" : "logins");
