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
  /** Whoever asks: its turns are the address's. */
  readonly user = undefined;

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
  /** Was read, and is parsed when nothing waits. */
  rest: Buffer | undefined;
  /** The rest has its turn already. */
  isScheduled = false;
  /** Its last response is made, and what else it sends is not read. */
  isCut = false;

  constructor(
    readonly socket: Socket,
    readonly holder: Holder,
    /** A proxy of ours carries many clients, and is none. */
    readonly isProxy: boolean,
  ) {}

  /** Whether nothing more is read of it, for now or for ever. */
  get isHeld(): boolean {
    return this.isCut || this.waiting.length > 0 || this.rest !== undefined;
  }

  /** Nothing is asked, or a request is not complete. */
  get isIdle(): boolean {
    return this.started.length === 0;
  }
}

/** Reads no more of it. Node looks at the event, which a socket that counts as paused would not emit by itself. */
export function hold(socket: Socket): void {
  socket.pause();
  socket.emit("pause");
}

/** Milliseconds in which a client can read its last response; one that keeps its side open does not keep ours. */
const LINGER_MS = 1_000;

/** Closes both ways a little later: the reset of a connection on which more comes could overtake the response. */
export function linger(socket: Socket): void {
  setTimeout(() => socket.destroy(), LINGER_MS).unref();
}

/** The response that comes next is the last. */
export function cut(connection: Connection): void {
  const { socket } = connection;
  connection.isCut = true;
  hold(socket);
  // Node calls it once the response is sent, and would close both ways at once.
  socket.destroySoon = () => {
    socket.end();
    linger(socket);
  };
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
