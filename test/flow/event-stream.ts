import type { Client } from "../../testkit/client";
import { until } from "../../testkit/until";

export interface OrderEvent {
  id: string;
  event: string;
  data: { status: string; at: string; reason: string | null };
}

/** A client's open stream of an order's events (WHATWG HTML, 9.2.6). */
export class EventStream {
  /** The text received so far. */
  text = "";
  /** Whether the response is still open, and if not, how it ended. */
  state: "open" | "ended" | "broken" = "open";
  private readonly done: Promise<void>;

  private constructor(
    readonly response: Response,
    private readonly abort: AbortController,
  ) {
    this.done = this.read();
  }

  /** Opens a stream. For a response that is no stream, `state` and `text` are set, too. */
  static async open(client: Client, orderId: string, lastEventId?: string): Promise<EventStream> {
    const abort = new AbortController();
    const response = await fetch(`${client.url}/orders/${orderId}/events`, {
      signal: abort.signal,
      headers: {
        ...(client.token !== undefined && { Authorization: `Bearer ${client.token}` }),
        ...(lastEventId !== undefined && { "Last-Event-ID": lastEventId }),
      },
    });
    return new EventStream(response, abort);
  }

  get status(): number {
    return this.response.status;
  }

  get events(): OrderEvent[] {
    return this.text.split("\n\n").flatMap((block) => {
      const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/, 2) as [string, string]));
      return fields["data"] === undefined ? [] : { id: fields["id"]!, event: fields["event"]!, data: JSON.parse(fields["data"]) };
    });
  }

  get statuses(): string[] {
    return this.events.map(({ data }) => data.status);
  }

  has = (...statuses: string[]): Promise<void> =>
    until(`${statuses.join()} has come`, () => {
      if (this.statuses.length > statuses.length) throw new Error(`unexpected statuses: ${this.statuses.join()}`);
      return this.statuses.join() === statuses.join();
    });

  /** Waits until the server ends the stream. */
  async end(): Promise<void> {
    await until("the stream ends", () => this.state !== "open");
    expect(this.state).toBe("ended");
  }

  /** Disconnects. */
  async close(): Promise<void> {
    this.abort.abort();
    await this.done;
  }

  private async read(): Promise<void> {
    try {
      for await (const text of this.response.body?.pipeThrough(new TextDecoderStream()) ?? []) this.text += text;
      this.state = "ended";
    } catch {
      this.state = "broken";
    }
  }
}
