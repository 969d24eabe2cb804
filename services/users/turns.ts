import { problem, tooLate } from "../../broker/errors";
import { FairQueue, overShare, shareOf, type Client } from "../../mixins/fair-queue";

export type QueueName = "logins" | "registrations";

/** A request for hashing a password: who makes it, and its deadline. */
export interface Turn {
  readonly queue: QueueName;
  readonly client: Client;
  /** By `performance.now()`. */
  readonly deadline: number;
  /** Whether the caller is still connected; checked before the work is started. */
  readonly isWanted: () => boolean;
  /** Set once work has started in this turn. */
  isUsed?: true;
}

interface Waiting {
  readonly turn: Turn;
  readonly expectedMs: () => number;
  start(): void;
  drop(error: Error): void;
}

/** Bounds memory; at usual costs, deadlines allow far fewer. */
const MAX_WAITING = 256;
/** Number of turns after which an address that had one is like any other. */
const RECENT_TURNS = 4;
/** `Retry-After` for a request refused because too many others are waiting, in seconds. */
const RETRY_AFTER_SECONDS = 2;

const tooMany = () => problem("SERVICE_UNAVAILABLE", "too many passwords are being hashed", { retryAfter: RETRY_AFTER_SECONDS });

/**
 * Decides the order in which passwords get a thread. Logins and registrations have separate queues, and turns rotate among the clients of
 * each. The queues alternate while both are waiting, except that an address which had one of the last turns comes after the others: a
 * client in both queues has no more turns than one with a login. While no other client is waiting, one may use all threads. A request
 * that is not expected to be served by its deadline is refused at once.
 */
export class Turns {
  private readonly queues = { logins: new FairQueue<Waiting>(MAX_WAITING), registrations: new FairQueue<Waiting>(MAX_WAITING) };
  private running = 0;
  private last: QueueName = "registrations";
  /** The addresses that had the last turns, newest last. */
  private readonly recent: string[] = [];

  constructor(private readonly threads: number) {}

  /** Checks whether work would be refused now, before any other work on the request. @throws the errors that `run` throws at once */
  check(turn: Turn, expectedMs: () => number): void {
    // An idle thread tries anything with time left: the expected time may be wrong, and only measuring work corrects it.
    if (this.hasIdleThread) {
      if (!turn.isWanted() || performance.now() > turn.deadline) throw tooLate();
      return;
    }
    const queue = this.queues[turn.queue];
    const { address } = turn.client;
    const hashes = ((turn.deadline - performance.now()) / expectedMs()) * this.threads;
    if (queue.sizeOf(address) >= shareOf(Math.min(hashes, MAX_WAITING))) throw overShare();
    const isFirst = queue.sizeOf(address) === 0 && !this.recent.includes(address);
    const comesBefore = (other: string): boolean => !isFirst || !this.recent.includes(other);
    const nth = queue.sizeOf(address) + 1;
    const before = queue.turnsBefore(nth, comesBefore);
    const others = this.queues[otherThan(turn.queue)].turnsBefore(nth, comesBefore);
    const ofOthers = isFirst ? Math.min(others, before + 1) : others; // the queues alternate among those without a recent turn
    if (before + ofOthers + this.running / 2 + this.threads > hashes) throw tooMany(); // running work counts as half done
  }

  /**
   * Runs the work when its turn comes.
   * @param expectedMs the expected duration, by the current measurements
   * @throws TOO_MANY_REQUESTS if this address has queued a quarter of what can be served; SERVICE_UNAVAILABLE at once if the deadline
   * can't be met, or later if it could not be met after all
   */
  async run<T>(turn: Turn, expectedMs: () => number, work: () => Promise<T>): Promise<T> {
    this.check(turn, expectedMs);
    if (this.hasIdleThread) this.begin(turn);
    else await this.wait(turn, expectedMs);
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
      this.queues[turn.queue].force(turn.client, { turn, expectedMs, start: resolve, drop: reject });
    });
  }

  private startNext(): void {
    while (this.running < this.threads) {
      const next = this.take();
      if (next === undefined) return;
      const { deadline, isWanted } = next.turn;
      if (isWanted() && performance.now() + next.expectedMs() <= deadline) {
        this.begin(next.turn);
        next.start();
      } else next.drop(tooLate());
    }
  }

  private begin({ queue, client }: Turn): void {
    this.running++;
    this.last = queue;
    this.recent.push(client.address);
    if (this.recent.length > RECENT_TURNS) this.recent.shift();
  }

  private take(): Waiting | undefined {
    const [one, other] = [this.queues[otherThan(this.last)], this.queues[this.last]];
    // Those without a recent turn first, then those whose last turn is longest ago.
    for (let place = -1; place < this.recent.length; place++) {
      const fits = ({ turn }: Waiting): boolean => this.recent.lastIndexOf(turn.client.address) <= place;
      const next = one.take(fits) ?? other.take(fits);
      if (next !== undefined) return next;
    }
    return undefined;
  }
}

const otherThan = (name: QueueName): QueueName => (name === "logins" ? "registrations" : "logins");
