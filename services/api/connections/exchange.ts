import type { IncomingMessage, ServerResponse } from "node:http";
import type { Request } from "../../../broker/request";
import type { Requester } from "../../../mixins/batching";
import type { Caller } from "../../../contracts/users";
import type { Connection, Holder } from "./connection";
import type { Coding } from "../http/request";
import type { FormBody } from "../routing/route";
import type { Stream } from "../streams/stream";

/** Time limit from a request's head to its response, including all waiting, in ms. */
const BUDGET_MS = 4_900;

/** A property rather than a WeakMap, whose entries cost too much garbage collection at thousands of requests per second. */
const EXCHANGE = Symbol("exchange");
type Carrier = ServerResponse & { [EXCHANGE]?: Exchange };

/** The exchange of a response. @throws Error if its request was never started */
export function exchangeOf(res: Carrier): Exchange {
  const exchange = res[EXCHANGE];
  if (exchange === undefined) throw new Error("this response belongs to no started request");
  return exchange;
}

/** One request and its response. */
export class Exchange implements Requester, Request {
  readonly since = performance.now();
  deadline = this.since + BUDGET_MS;
  /** The path of its route, as in `ROUTES`; set once the route is found. */
  routePath: string | undefined;
  /** Set once the token is verified. */
  caller: Caller | undefined;
  /** Size of the response, once it is ready. */
  bytes = 0;
  readyAt: number | undefined;
  /** Whether the body is being read. */
  isReadingBody = false;
  /** The content coding of its body, which has to be decoded. */
  coding: Coding | undefined;
  /** Set if the body is a form, and the route accepts one. */
  form: FormBody | undefined;
  /** Whether the response is an event stream: shutdown does not wait for it, and its limits are separate. */
  isStream = false;
  /** The event stream, once it is open; closed when the exchange is over. */
  stream: Stream | undefined;
  /** Whether it was started while other work waited for the event loop. */
  startedInRush = false;
  /** Whether it was refused before any work on it, because of overload. */
  isRefused = false;
  /** Whether the response has been sent or the connection closed. */
  isOver = false;

  constructor(
    readonly id: string,
    readonly req: IncomingMessage,
    readonly res: Carrier,
    readonly connection: Connection<Exchange>,
    /** The resources that the client's address holds on this gateway. */
    readonly holder: Holder,
  ) {
    res[EXCHANGE] = this;
  }

  get address(): string {
    return this.holder.address;
  }

  get user(): string | undefined {
    return this.caller?.id;
  }

  /** Extends the deadline, for actions with a longer timeout. */
  extendDeadline(timeoutMs: number): void {
    this.deadline = Math.max(this.deadline, this.since + timeoutMs);
  }

  /** Whether the client is still connected and the deadline has not passed. */
  isWanted(): boolean {
    return !this.isOver && !this.connection.socket.destroyed && performance.now() < this.deadline;
  }
}
