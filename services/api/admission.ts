import type { IncomingMessage, ServerResponse } from "node:http";

/** Most requests that one gateway has under way. Twice what fills its batches: more would wait longer, and none be served sooner. */
const MAX_UNDER_WAY = 512;

interface Entry {
  /** its client has sent all of it */
  isRead: boolean;
  isAnswered: boolean;
  isOver: boolean;
}

/**
 * Counts a gateway's requests, each from its head until it is answered or its client has gone. It is answered when its answer is
 * made: what is still being sent, or waits behind another answer on its connection, takes no room from others.
 */
export class Admission {
  private readonly entries = new WeakMap<ServerResponse, Entry>();
  private unsent = 0;
  /** Those that are read and not answered. */
  private underWay = 0;

  get isFull(): boolean {
    return this.underWay >= MAX_UNDER_WAY;
  }

  get size(): number {
    return this.underWay;
  }

  /** Whether every request is answered, and its answer sent. */
  get isIdle(): boolean {
    return this.unsent === 0;
  }

  enter(req: IncomingMessage, res: ServerResponse): void {
    const entry = { isRead: false, isAnswered: false, isOver: false };
    const begin = (): void => {
      if (entry.isAnswered) return; // before it was read
      entry.isRead = true;
      this.underWay++;
    };
    this.entries.set(res, entry);
    this.unsent++;
    if (hasBody(req)) req.once("end", begin);
    else begin();
    res.once("close", () => {
      this.release(res);
    });
  }

  answered(res: ServerResponse): void {
    const entry = this.entries.get(res);
    if (entry === undefined || entry.isAnswered) return;
    entry.isAnswered = true;
    if (entry.isRead) this.underWay--;
  }

  /** What has been sent, or is a stream from now on: a stop does not wait for it. */
  release(res: ServerResponse): void {
    this.answered(res);
    const entry = this.entries.get(res);
    if (entry === undefined || entry.isOver) return;
    entry.isOver = true;
    this.unsent--;
  }
}

/** RFC 9112, 6.3. */
const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers["transfer-encoding"] !== undefined || (headers["content-length"] ?? "0") !== "0";
