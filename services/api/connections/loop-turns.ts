import { FairQueue, type Client } from "../../../mixins/fair-queue";

/** Time in which work is started, in one turn of the event loop, in ms; later work waits for the next turn. */
const TURN_MS = 2;
/** The same, if a connection has arrived: libuv accepts one per turn, and others may wait behind a thousand connections of one client. */
const ARRIVAL_TURN_MS = 0.5;
/** Maximum queued items started per turn: their later work is not covered by the time measured. */
const TURN_ITEMS = 64;
/** Maximum queue length. */
const PLACES = 2_048;

/**
 * Shares the time of the event loop fairly. However many requests arrive at once, and however expensive their bodies are to validate,
 * each turn starts only a few milliseconds of them before other events are handled. Queued work is started in rotation among addresses
 * and users.
 */
export class LoopTurns {
  private readonly queue = new FairQueue<() => void>(PLACES);
  /** When the first work of this turn was started; undefined if there was none. */
  private since: number | undefined;
  private maxMs = TURN_MS;

  /** Call when a connection has arrived, since more may be waiting to be accepted. */
  noteArrival(): void {
    this.maxMs = ARRIVAL_TURN_MS;
  }

  /** Whether this turn's time is used up. */
  get isSpent(): boolean {
    return this.since !== undefined && performance.now() - this.since >= this.maxMs;
  }

  /** Whether work passed to `run` now would have to wait. */
  get isBusy(): boolean {
    return this.queue.size > 0 || this.isSpent;
  }

  /** Runs `work` now or in one of the next turns. @throws TOO_MANY_REQUESTS or SERVICE_UNAVAILABLE if too much is queued */
  run(client: Client, work: () => void): void {
    if (this.isBusy) {
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
    const { maxMs } = this;
    this.maxMs = TURN_MS;
    if (this.queue.size === 0) return;
    this.since = performance.now();
    setImmediate(this.turn);
    for (let n = 0; n < TURN_ITEMS && performance.now() - this.since < maxMs; n++) {
      const work = this.queue.take();
      if (work === undefined) return;
      work();
    }
  };
}
