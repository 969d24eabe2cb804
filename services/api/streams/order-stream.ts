import type { ServerResponse } from "node:http";
import { errorCode, isUnavailable } from "../../../broker/errors";
import { withRequest } from "../../../broker/request";
import { isFinal, type Order } from "../../../contracts/orders";
import type { Caller } from "../../../contracts/users";
import { Stream } from "./stream";

/** An order and the client that follows its changes. */
export interface Following {
  order: Order;
  caller: Caller;
  /** How many entries of its history the client has: the id of the last event that it received. */
  seen: number;
}

/** Maximum unsent bytes per stream; more than a whole history has. */
const MAX_UNSENT_BYTES = 16_384;

/** How to read a stream, for the OpenAPI document: Swagger UI shows a response only once it is complete. */
export const STREAM_EXAMPLE = `The stream stays open until the order is final, for 15 minutes at most. Read it in a terminal, with the URL of this
server in \`SHOP\`, the id of an order in \`ORDER\` and an access token in \`TOKEN\`:

    curl -N "$SHOP/orders/$ORDER/events" -H "Authorization: Bearer $TOKEN"`;

/** An order's history, then each change, as `order.changed` or a periodic read reveals it. */
export class OrderStream extends Stream {
  private isReading = false;
  private mayBeStale = false;
  private timer: NodeJS.Timeout | undefined;
  private seen: number;
  private readonly first: Order;

  constructor(
    res: ServerResponse,
    { order, caller, seen }: Following,
    private readonly read: () => Promise<Order>,
    private readonly limits: { readonly readEveryMs: number; readonly lifeMs: number },
  ) {
    super(res, caller, limits.lifeMs, MAX_UNSENT_BYTES);
    this.first = order;
    this.seen = seen;
  }

  /** Reads the order and sends new events. If another change is reported meanwhile, the read may be too old, so it is repeated. */
  update(): void {
    this.mayBeStale = true;
    if (this.isOpen && !this.isReading) void withRequest(this.requestId, Infinity, () => this.catchUp());
  }

  override stop(): void {
    super.stop();
    clearTimeout(this.timer);
  }

  protected start(): void {
    this.writeNew(this.first);
    this.update(); // the order may have changed after it was read and before this stream was registered
  }

  private async catchUp(): Promise<void> {
    clearTimeout(this.timer);
    this.isReading = true;
    while (this.isOpen && this.mayBeStale) {
      this.mayBeStale = false;
      try {
        this.writeNew(await this.read());
      } catch (error) {
        // The token is no longer valid, or the order no longer visible. If a service is unavailable or busy, read again later.
        if (!isUnavailable(error) && errorCode(error) !== "TOO_MANY_REQUESTS") this.end();
      }
    }
    this.isReading = false;
    if (this.isOpen) this.wait();
  }

  /** Schedules the next read, with jitter: streams that started together should not keep reading together. */
  private wait(): void {
    const spread = this.limits.readEveryMs * (0.8 + 0.2 * Math.random());
    this.timer = setTimeout(
      () => {
        if (performance.now() >= this.until) {
          this.end();
          return;
        }
        this.write(": \n\n"); // keep proxies from closing an idle connection
        this.update();
      },
      Math.min(spread, this.until - performance.now()),
    );
  }

  private writeNew(order: Order): void {
    const text = events(order, this.seen);
    this.seen = order.history.length;
    if (text !== "") this.write(text);
    if (isFinal(order.status)) this.end();
  }
}

/** New entries of an order's history as events with a line of JSON (WHATWG HTML, 9.2.5). An event's id is its position in the history. */
function events({ history, reason }: Order, seen: number): string {
  const data = history.map(({ status, at }) => JSON.stringify({ status, at, reason: status === "REJECTED" ? reason : null }));
  const all = data.map((line, i) => `id: ${i + 1}\nevent: status\ndata: ${line}\n\n`);
  return all.slice(seen).join("");
}
