import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Exchange } from "./exchange";

/** What one address holds of a gateway. */
export class Holder {
  readonly connections = new Set<Connection>();
  exchanges = 0;
  unsentBytes = 0;
  bodies = 0;
  parsed = 0;

  constructor(readonly address: string) {}

  get isEmpty(): boolean {
    return this.connections.size === 0 && this.exchanges === 0;
  }
}

/** A request that waits for those before it on its connection. */
export interface Parsed {
  readonly req: IncomingMessage;
  start(): void;
}

/** One socket, and its requests in the order in which they came. */
export class Connection {
  /** Started, and not yet sent. */
  readonly started: Exchange[] = [];
  /** Parsed, and not started. */
  readonly waiting: Parsed[] = [];
  /** Of the responses that are made and not yet sent. */
  unsentBytes = 0;
  /** Since when the first of those started could be sent, as far as its connection is concerned. */
  headSince = performance.now();

  constructor(
    readonly socket: Socket,
    readonly holder: Holder,
    /** A proxy of ours carries many clients, and is none. */
    readonly isProxy: boolean,
  ) {}

  /** Nothing is asked, or a request is not complete. */
  get isIdle(): boolean {
    return this.started.length === 0;
  }
}

/** Closes the connection that has been idle, or at least open, for longest. @returns whether there was one */
export function closeIdle(connections: Iterable<Connection>): boolean {
  for (const connection of connections)
    if (connection.isIdle && !connection.isProxy && !connection.socket.destroyed) {
      connection.socket.destroy();
      return true;
    }
  return false;
}
