import type { ServerResponse } from "node:http";
import { currentRequestId } from "../../../broker/request";
import type { Caller } from "../../../contracts/users";

/** Milliseconds after which a client reconnects when its stream has ended. */
const RETRY_MS = 2_000;

/** Time in which a client must have read the rest of a stream that has ended, in ms. */
const END_TIMEOUT_MS = 30_000;

/** A stream is the last response of its connection (RFC 9112, 9.6). */
export const EVENT_STREAM = { "Content-Type": "text/event-stream", "X-Accel-Buffering": "no", Connection: "close" };

/** A response of server-sent events (WHATWG HTML, 9.2), which stays open. */
export abstract class Stream {
  /** Unregisters the stream; called when its response is over. */
  close: () => void = () => undefined;
  protected isOpen = true;
  /** When the stream ends, by `performance.now()`; its client resumes, here or at another gateway. */
  protected readonly until: number;
  /** What the stream does later would otherwise get the id of the event or timer that causes it. */
  protected readonly requestId = currentRequestId();

  /** @param maxUnsentBytes beyond which a client that does not read is disconnected */
  constructor(
    protected readonly res: ServerResponse,
    readonly caller: Caller,
    lifeMs: number,
    private readonly maxUnsentBytes: number,
  ) {
    this.until = performance.now() + lifeMs;
  }

  /** Call after the response head is written. */
  begin(): void {
    this.write(`retry: ${RETRY_MS}\n\n`);
    this.start();
  }

  end(): void {
    if (!this.isOpen) return;
    this.stop();
    this.res.end();
    if (this.res.destroyed) return;
    // A client that does not read would keep its place for ever.
    const timer = setTimeout(() => this.res.destroy(), END_TIMEOUT_MS).unref();
    this.res.once("close", () => {
      clearTimeout(timer);
    });
  }

  /** Stops all writing. */
  stop(): void {
    this.isOpen = false;
  }

  protected abstract start(): void;

  protected write(text: string): void {
    if (!this.isOpen) return;
    this.res.write(text);
    if (this.res.writableLength <= this.maxUnsentBytes) return;
    this.stop();
    this.res.destroy();
  }
}
