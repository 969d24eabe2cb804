import { FairQueue, type Client } from "../../mixins/fair-queue";

/** Milliseconds of one turn of the event loop in which work is begun; what comes later waits for the next turn. */
const TURN_MS = 5;
/** And of one in which a connection has come: libuv accepts one in each turn, and the next person's may wait behind a thousand of one client. */
const ARRIVAL_TURN_MS = 0.5;
/** Most that is begun of what has waited, in one turn: what each of them goes on to do is not in its time yet. */
const TURN_ITEMS = 64;
/** Most that waits. */
const PLACES = 2_048;

/**
 * The time of the event loop, shared fairly. However many requests come in at one moment, be they cheap or be their bodies hard to
 * check, the loop begins a few milliseconds of them and goes on to what else there is; then to more of them, in rotation among
 * addresses and users.
 */
export class LoopTurns {
  private readonly queue = new FairQueue<() => void>(PLACES);
  /** When the first work of this turn began; undefined where there was none. */
  private since: number | undefined;
  private mostMs = TURN_MS;

  /** A connection has come, and more may wait behind it. */
  arrived(): void {
    this.mostMs = ARRIVAL_TURN_MS;
  }

  /** Whether all of this turn's time is used up. */
  get isSpent(): boolean {
    return this.since !== undefined && performance.now() - this.since >= this.mostMs;
  }

  /** Does it now, or in one of the next turns. @throws TOO_MANY_REQUESTS, SERVICE_UNAVAILABLE where too much waits */
  run(client: Client, work: () => void): void {
    if (this.queue.size > 0 || this.isSpent) {
      this.queue.add(client, work);
      return;
    }
    if (this.since === undefined) {
      this.since = performance.now();
      setImmediate(this.turn);
    }
    work();
  }

  private readonly turn = (): void => {
    this.since = undefined;
    const { mostMs } = this;
    this.mostMs = TURN_MS;
    if (this.queue.size === 0) return;
    this.since = performance.now();
    setImmediate(this.turn);
    for (let n = 0; n < TURN_ITEMS && performance.now() - this.since < mostMs; n++) {
      const work = this.queue.take();
      if (work === undefined) return;
      work();
    }
  };
}
