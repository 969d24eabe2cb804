import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";

/** The resources of a gateway that one address holds. */
export class Holder {
  readonly connections = new Set<Connection>();
  exchanges = 0;
  unsentBytes = 0;
  bodies = 0;
  parsed = 0;
  /** Turns for a holder's connections belong to the address, not to a user. */
  readonly user = undefined;

  constructor(readonly address: string) {}

  get isEmpty(): boolean {
    return this.connections.size === 0 && this.exchanges === 0;
  }
}

/** A parsed request that waits for earlier requests on its connection. */
export interface Parsed {
  readonly req: IncomingMessage;
  start(): void;
}

/** A started request, as its connection sees it. */
interface Started {
  readonly req: IncomingMessage;
  /** Size of the response, and when it was ready. */
  readonly bytes: number;
  readonly readyAt: number | undefined;
  readonly isStream: boolean;
}

/** One socket, and its requests in order of arrival. */
export class Connection<R extends Started = Started> {
  /** Started; response not yet sent. */
  readonly started: R[] = [];
  /** Parsed, but not started. */
  readonly waiting: Parsed[] = [];
  /** Bytes of responses that are ready but not yet sent. */
  unsentBytes = 0;
  readonly openedAt = performance.now();
  /** When the first started request became the next to be sent; of an idle connection, since when it is idle. */
  headSince = this.openedAt;
  /** Bytes already read, to be parsed when no request is waiting. */
  rest: Buffer | undefined;
  /** The latest request with a body in chunks. */
  chunked: IncomingMessage | undefined;
  /** Node's parsing of received bytes, if they are passed to it in slices. */
  parseSlice: ((bytes: Buffer) => void) | undefined;
  /** Parsing of the rest is already scheduled. */
  isScheduled = false;
  /** Set while reading is paused: its client has many connections, and sends more than can be served at once. */
  pause: NodeJS.Timeout | undefined;
  /** Its last response is being sent, and nothing more is read from it. */
  isCut = false;

  constructor(
    readonly socket: Socket,
    readonly holder: Holder,
    /** Whether the peer is a trusted proxy, which carries many clients. */
    readonly isProxy: boolean,
  ) {}

  get isPaused(): boolean {
    return this.pause !== undefined;
  }

  /** Whether reading is paused, or has ended for good. */
  get isHeld(): boolean {
    return this.isCut || this.isPaused || this.waiting.length > 0 || this.rest !== undefined;
  }
}

/** Stops reading from a socket. Node's HTTP server acts on the event, which a socket that already counts as paused would not emit. */
export function hold(socket: Socket): void {
  socket.pause();
  socket.emit("pause");
}

/** Milliseconds that a client has for reading its last response; after that, its open side no longer keeps the connection open. */
const LINGER_MS = 1_000;

/** Destroys the socket after a delay: if more data arrives, an immediate reset could overtake the response. */
export function linger(socket: Socket): void {
  setTimeout(() => socket.destroy(), LINGER_MS).unref();
}

/** Makes the next response the last one of the connection. */
export function cut(connection: Connection): void {
  const { socket } = connection;
  connection.isCut = true;
  connection.rest = undefined;
  hold(socket);
  // Node calls this once the response is sent, and would close both directions at once.
  socket.destroySoon = () => {
    socket.end();
    linger(socket);
  };
}

/**
 * Closes the connection that has been open for longest of those that have been idle for `idleMs`. A younger one is not replaced: refusing
 * the new one costs half as much, and the client of the other may be about to send its request.
 * @param connections in the order in which they were opened
 * @returns whether there was one
 */
export function closeIdle(connections: Iterable<Connection>, idleMs: number): boolean {
  const before = performance.now() - idleMs;
  for (const connection of connections) {
    if (connection.openedAt > before) return false; // all that follow are younger
    const { socket, started, headSince, isProxy } = connection;
    // Without a started request it is idle; one may have been received in part.
    if (started.length === 0 && headSince <= before && !isProxy && !socket.destroyed) {
      socket.destroy();
      return true;
    }
  }
  return false;
}
