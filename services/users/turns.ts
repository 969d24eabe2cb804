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

  /**
   * Does the work when its turn comes.
   * @param expectedMs how long it will take, as far as is known when asked
   * @throws TOO_MANY_REQUESTS where this address waits for a quarter of what can be served, SERVICE_UNAVAILABLE at once where
   * the deadline can't be met, or later where it could not be
   */
  async run<T>(turn: Turn, expectedMs: () => number, work: () => Promise<T>): Promise<T> {
    // An idle thread tries it in any case: what is expected may be wrong, and only work corrects it.
    if (this.running < this.threads && this.isEmpty) this.running++;
    else await this.wait(turn, expectedMs);
    this.last = turn.line;
    try {
      return await work();
    } finally {
      this.running--;
      this.startNext();
    }
  }

  private get isEmpty(): boolean {
    return this.queues.logins.size + this.queues.registrations.size === 0;
  }

  private wait(turn: Turn, expectedMs: () => number): Promise<void> {
    const { line, client } = turn;
    const queue = this.queues[line];
    const hashes = ((turn.deadline - performance.now()) / expectedMs()) * this.threads;
    if (queue.sizeOf(client.address) >= shareOf(hashes)) throw overShare();
    const before = queue.turnsBefore(client.address);
    const ofOthers = Math.min(this.queues[otherThan(line)].size, before + 1);
    if (before + ofOthers + this.running / 2 + this.threads > hashes) throw tooMany(); // what runs is taken for half done
    return new Promise((resolve, reject) => {
      queue.force(client, { turn, expectedMs, start: resolve, drop: reject });
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
