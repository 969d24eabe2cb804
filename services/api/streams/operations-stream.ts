import type { ServerResponse } from "node:http";
import { withRequest } from "../../../broker/request";
import type { Caller } from "../../../contracts/users";
import type { Snapshots } from "../operations/snapshots";
import { Stream } from "./stream";

/** Maximum unsent bytes per stream. A snapshot has some kilobytes, and is not sent while an earlier one is unsent. */
const MAX_UNSENT_BYTES = 262_144;

/** How to read the stream, for the OpenAPI document. */
export const OPERATIONS_EXAMPLE = `Each event has the type \`snapshot\`, and a snapshot as JSON in its data: one at once, and one per second as long as the stream
is open, for 15 minutes at most. A client that reads too slowly misses snapshots. In a terminal, with the URL of this server in \`SHOP\` and an admin's access token in \`TOKEN\`:

    curl -N "$SHOP/admin/events" -H "Authorization: Bearer $TOKEN"`;

/** The state of the whole shop, once per second. */
export class OperationsStream extends Stream {
  private unwatch: () => void = () => undefined;

  /** @param check rejects when the token is no longer valid */
  constructor(
    res: ServerResponse,
    caller: Caller,
    private readonly check: () => Promise<unknown>,
    private readonly snapshots: Snapshots,
    lifeMs: number,
  ) {
    super(res, caller, lifeMs, MAX_UNSENT_BYTES);
  }

  override stop(): void {
    super.stop();
    this.unwatch();
  }

  protected start(): void {
    this.unwatch = this.snapshots.watch((text) => void withRequest(this.requestId, Infinity, () => this.show(text)));
  }

  private async show(text: string): Promise<void> {
    try {
      await this.check();
    } catch {
      this.end(); // the client gets the reason when it reconnects
      return;
    }
    if (performance.now() >= this.until) this.end();
    else if (this.res.writableLength === 0) this.write(`event: snapshot\ndata: ${text}\n\n`);
  }
}
