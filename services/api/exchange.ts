import type { IncomingMessage, ServerResponse } from "node:http";
import type { Request } from "../../broker/request";
import type { Requester } from "../../mixins/batching";
import type { Caller } from "../../contracts/users";
import type { Connection, Holder } from "./connection";
import type { Stream } from "./streams";

/** Milliseconds from a request's head to its response, whatever it waits for. */
const BUDGET_MS = 4_900;

/** One request and its response. */
export class Exchange implements Requester, Request {
  readonly since = performance.now();
  deadline = this.since + BUDGET_MS;
  /** Known once its token is verified. */
  caller: Caller | undefined;
  /** Of the response, once it is made. */
  bytes = 0;
  madeAt: number | undefined;
  /** Its body is being read. */
  isRead = false;
  /** The response goes on until its client leaves: it is not waited for, and has bounds of its own. */
  isStream = false;
  /** What goes on, once it is open; closed when the exchange is over. */
  stream: Stream | undefined;
  /** It was refused before anything of it was looked at. */
  isRefused = false;
  /** The response has been sent, or its connection is closed. */
  isOver = false;

  constructor(
    readonly id: string,
    readonly req: IncomingMessage,
    readonly res: ServerResponse,
    readonly connection: Connection,
    /** What its client's address holds of this gateway. */
    readonly holder: Holder,
  ) {}

  get address(): string {
    return this.holder.address;
  }

  get user(): string | undefined {
    return this.caller?.id;
  }

  /** What its contract lets take longer than other requests may. */
  allow(timeoutMs: number): void {
    this.deadline = Math.max(this.deadline, this.since + timeoutMs);
  }

  /** Whether anybody still waits for the response. */
  isWanted(): boolean {
    return !this.isOver && !this.connection.socket.destroyed && performance.now() < this.deadline;
  }
}
