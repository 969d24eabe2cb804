import type { IncomingMessage, ServerResponse } from "node:http";

/** Most requests that one gateway has under way. Twice what fills its batches: more would wait longer, and none be served sooner. */
const MAX_UNDER_WAY = 512;

/** Emitted on a response that goes on as a stream. */
const RELEASED = Symbol("released");

/** Counts a gateway's requests, each from its head until it is answered or its client has gone. */
export class Admission {
  private unanswered = 0;
  /** Those that have come to their end: one that is still being sent takes no room from others. */
  private underWay = 0;

  get isFull(): boolean {
    return this.underWay >= MAX_UNDER_WAY;
  }

  get size(): number {
    return this.underWay;
  }

  /** Whether every request is answered, those included that are still being sent. */
  get isIdle(): boolean {
    return this.unanswered === 0;
  }

  enter(req: IncomingMessage, res: ServerResponse): void {
    let done = false;
    let read = false;
    const begin = (): void => {
      if (done) return; // answered before it was read
      read = true;
      this.underWay++;
    };
    this.unanswered++;
    if (hasBody(req)) req.once("end", begin);
    else begin();
    const leave = (): void => {
      if (done) return;
      done = true;
      this.unanswered--;
      if (read) this.underWay--;
    };
    res.once("close", leave).once(RELEASED, leave);
  }

  /** What is a stream from now on takes no room from others, and a stop does not wait for it. */
  release(res: ServerResponse): void {
    res.emit(RELEASED);
  }
}

/** RFC 9112, 6.3. */
const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers["transfer-encoding"] !== undefined || (headers["content-length"] ?? "0") !== "0";
