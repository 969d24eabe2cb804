import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { full, overShare, shareOf } from "../../../mixins/fair-queue";
import type { ClientAddress } from "../http/client-address";
import { BACK_PRESSURE, closeSlowReaders, canStart, type BackPressureLimits } from "./back-pressure";
import { closeIdle, Connection, hold, Holder, type Parsed } from "./connection";
import { Exchange } from "./exchange";
import type { LoopTurns } from "./loop-turns";
import { pauseParserUnderLoad, keepRest, readOn } from "./parser";
import { closeBehindParts } from "./parts";
import { hasBody } from "../http/request";

export interface ConnectionLimits extends BackPressureLimits {
  /** Maximum number of sockets per gateway. No address holds more than a quarter of this, of `unsentBytes`, `bodies` or `parsed`. */
  sockets: number;
  /** At the limit, a connection that has been idle for this long is closed for a new one. */
  idleMs: number;
  /** Maximum bytes of unsent responses in memory, bodies being read, and requests parsed but not started. */
  unsentBytes: number;
  bodies: number;
  parsed: number;
}

const LIMITS: Omit<ConnectionLimits, "largestBytes"> = {
  ...BACK_PRESSURE,
  sockets: 4_096,
  idleMs: 1_000,
  unsentBytes: 64 * 1_024 * 1_024,
  bodies: 512,
  parsed: 8_192, // a socket is read 64 KiB at a time, and the shortest request has about 30 bytes
};

/** Minimum duration of a pause in reading. It takes up to twice as long, so that not all connections are read again at the same moment. */
const PAUSE_MS = 1_000;

/** Interval of the check for slow readers. */
const SWEEP_MS = 1_000;

/**
 * The sockets of a gateway, with back-pressure: a client that sends requests faster than it reads responses is no longer read from.
 * A few requests per connection are started, the others wait. Unsent responses are bounded per connection, per address and per process.
 */
export class Connections {
  private readonly limits: ConnectionLimits;
  private readonly all = new Map<Socket, Connection<Exchange>>();
  private readonly holders = new Map<string, Holder>();
  private unsentBytes = 0;
  private bodies = 0;
  private parsed = 0;
  private unfinished = 0;
  private readonly sweeper: NodeJS.Timeout;

  constructor(
    server: Server,
    private readonly address: ClientAddress,
    private readonly turns: LoopTurns,
    /** Called for each request when its response is sent or its connection closed. */
    private readonly onOver: (exchange: Exchange) => void,
    limits: Partial<ConnectionLimits> & Pick<ConnectionLimits, "largestBytes">,
  ) {
    this.limits = { ...LIMITS, ...limits };
    // Runs before Node creates a parser, which is most of the cost of a refused connection.
    const serve = server.listeners("connection");
    server.removeAllListeners("connection");
    server.on("connection", (socket: Socket) => {
      this.turns.noteArrival();
      const connection = this.accept(socket);
      if (connection === undefined) return;
      for (const listener of serve) listener.call(server, socket);
      pauseParserUnderLoad(connection, this.turns);
    });
    this.sweeper = setInterval(() => {
      closeSlowReaders(this.all.values(), this.limits);
    }, SWEEP_MS).unref();
  }

  /** Whether every response has been sent; streams don't count. */
  get areIdle(): boolean {
    return this.unfinished === 0;
  }

  at(socket: Socket): Connection<Exchange> | undefined {
    return this.all.get(socket);
  }

  /** Starts a request, at once or when earlier responses on its connection have been sent. */
  open(id: string, req: IncomingMessage, res: ServerResponse, start: (exchange: Exchange) => void): void {
    const connection = this.all.get(req.socket);
    if (connection === undefined || req.socket.destroyed) return; // closed while its requests were parsed
    const parsed: Parsed = {
      req,
      start: () => {
        start(this.begin(new Exchange(id, req, res, connection, this.clientOf(connection, req))));
      },
    };
    if (connection.waiting.length === 0 && canStart(connection, req, this.limits)) {
      parsed.start();
      return;
    }
    this.wait(connection, parsed);
  }

  /**
   * Checks the limits on unsent bytes and bodies, before any other work on the request.
   * @throws TOO_MANY_REQUESTS if its address has reached its share, SERVICE_UNAVAILABLE if the gateway's limit is reached
   */
  check(exchange: Exchange): void {
    const { holder, req } = exchange;
    const { unsentBytes } = this.limits;
    if (this.isOverShare(exchange, this.limits.largestBytes(req))) throw overShare();
    if (this.unsentBytes >= unsentBytes) throw full();
    if (hasBody(req)) this.checkBodies(holder);
  }

  /** Counts a body from before it is read until it has been read or the response is sent. @throws as `check` */
  countBody(exchange: Exchange): void {
    const { holder, req } = exchange;
    if (!hasBody(req)) return;
    this.checkBodies(holder);
    exchange.isReadingBody = true;
    holder.bodies++;
    this.bodies++;
    req.once("close", () => {
      this.finishReading(exchange);
    });
  }

  /**
   * Whether a response would exceed its address's share of the unsent bytes. Also checked when it is ready, since many requests may be started
   * before the first of their responses is.
   */
  isOverShare({ holder }: Exchange, bytes: number): boolean {
    return holder.unsentBytes > 0 && holder.unsentBytes + bytes > shareOf(this.limits.unsentBytes);
  }

  /** Records that a response of `bytes` bytes is ready. */
  markReady(exchange: Exchange, bytes: number): void {
    if (exchange.readyAt !== undefined || exchange.isOver) return;
    exchange.readyAt = performance.now();
    exchange.bytes = bytes;
    exchange.connection.unsentBytes += bytes;
    exchange.holder.unsentBytes += bytes;
    this.unsentBytes += bytes;
  }

  /**
   * Stops reading from the connection of a request for a while, if its address has many connections: after a refusal, and after the
   * response to a request that arrived while the event loop was busy. Otherwise, a thousand connections that send their next request at
   * once would keep each turn of the event loop busy for 50 ms.
   */
  pauseReading({ connection }: Exchange): void {
    const isOneOfMany = connection.holder.connections.size > shareOf(shareOf(this.limits.sockets));
    if (!isOneOfMany || connection.isProxy || connection.isPaused || connection.socket.destroyed) return;
    hold(connection.socket);
    connection.pause = setTimeout(
      () => {
        connection.pause = undefined;
        readOn(connection, this.turns);
      },
      PAUSE_MS * (1 + Math.random()),
    ).unref();
  }

  /** Marks the response as a stream, which the client may keep open. */
  markStream(exchange: Exchange): void {
    exchange.isStream = true;
    this.unfinished--;
  }

  /** @returns whether the error only means that the parser was paused; it is resumed later */
  resumeIfPaused(socket: Socket, error: Error): boolean {
    const connection = this.all.get(socket);
    if (connection === undefined || !keepRest(connection, error, this.turns)) return false;
    readOn(connection, this.turns);
    return true;
  }

  stop(): void {
    clearInterval(this.sweeper);
  }

  private accept(socket: Socket): Connection<Exchange> | undefined {
    const peer = socket.remoteAddress;
    if (peer === undefined) {
      socket.destroy(); // already disconnected
      return undefined;
    }
    const holder = this.holderOf(this.address.ofPeer(peer));
    const connection = new Connection<Exchange>(socket, holder, this.address.isTrusted(peer));
    if (!connection.isProxy && !this.canAccept(holder)) {
      socket.destroy();
      this.forget(holder);
      return undefined;
    }
    this.all.set(socket, connection);
    holder.connections.add(connection);
    socket.once("close", () => {
      this.closed(connection);
    });
    return connection;
  }

  /** If a limit is reached, closes an idle connection: of the same address at its limit, of any address at the gateway's. */
  private canAccept(holder: Holder): boolean {
    const { sockets, idleMs } = this.limits;
    if (holder.connections.size >= shareOf(sockets)) return closeIdle(holder.connections, idleMs);
    return this.all.size < sockets || closeIdle(this.all.values(), idleMs);
  }

  private clientOf({ isProxy, holder }: Connection, req: IncomingMessage): Holder {
    return isProxy ? this.holderOf(this.address.of(req)) : holder;
  }

  /** Above the limit the connection is closed, since a refusal would have to wait for its turn, too. */
  private wait({ socket, holder, isProxy, waiting }: Connection, parsed: Parsed): void {
    const { parsed: most } = this.limits;
    if (this.parsed >= most || (!isProxy && holder.parsed >= shareOf(most))) {
      socket.destroy();
      return;
    }
    waiting.push(parsed);
    holder.parsed++;
    this.parsed++;
    hold(socket);
  }

  private begin(exchange: Exchange): Exchange {
    const { connection, holder, res } = exchange;
    closeBehindParts(exchange.req, res, connection);
    exchange.startedInRush = this.turns.isBusy;
    if (connection.started.push(exchange) === 1) connection.headSince = performance.now();
    holder.exchanges++;
    this.unfinished++;
    // Not `on`: a listener that stays keeps the exchange alive beyond the young generation's garbage collection, which adds a third to the
    // cost of a read.
    res.once("close", () => {
      this.sent(exchange);
    });
    return exchange;
  }

  private checkBodies(holder: Holder): void {
    const { bodies } = this.limits;
    if (holder.bodies >= shareOf(bodies)) throw overShare();
    if (this.bodies >= bodies) throw full();
  }

  private finishReading(exchange: Exchange): void {
    if (!exchange.isReadingBody) return;
    exchange.isReadingBody = false;
    exchange.holder.bodies--;
    this.bodies--;
  }

  /** Handles a response that has been handed to the operating system, or whose connection is closed. */
  private sent(exchange: Exchange): void {
    const { connection, holder, bytes, isStream } = exchange;
    if (exchange.isOver) return;
    exchange.isOver = true;
    this.onOver(exchange);
    this.finishReading(exchange);
    connection.started.splice(connection.started.indexOf(exchange), 1);
    connection.unsentBytes -= bytes;
    connection.headSince = performance.now();
    holder.unsentBytes -= bytes;
    holder.exchanges--;
    this.unsentBytes -= bytes;
    if (!isStream) this.unfinished--;
    this.forget(holder);
    // Not earlier: the rest of its body must be read.
    if (exchange.startedInRush) this.pauseReading(exchange);
    this.startWaiting(connection);
  }

  private startWaiting(connection: Connection<Exchange>): void {
    const { socket, waiting } = connection;
    if (waiting.length === 0 || connection.isCut || socket.destroyed) return;
    for (let first = waiting[0]; first !== undefined && canStart(connection, first.req, this.limits); first = waiting[0]) {
      waiting.shift();
      connection.holder.parsed--;
      this.parsed--;
      first.start();
    }
    if (waiting.length === 0) readOn(connection, this.turns);
  }

  private closed(connection: Connection<Exchange>): void {
    this.all.delete(connection.socket);
    connection.holder.connections.delete(connection);
    this.parsed -= connection.waiting.length;
    connection.holder.parsed -= connection.waiting.length;
    connection.waiting.length = 0;
    connection.rest = undefined;
    clearTimeout(connection.pause);
    // Node 20 emits no "close" for responses that waited behind another one.
    for (const exchange of [...connection.started]) this.sent(exchange);
    this.forget(connection.holder);
  }

  private holderOf(address: string): Holder {
    let holder = this.holders.get(address);
    if (holder === undefined) this.holders.set(address, (holder = new Holder(address)));
    return holder;
  }

  private forget(holder: Holder): void {
    if (holder.isEmpty) this.holders.delete(holder.address);
  }
}
