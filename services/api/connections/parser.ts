import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { hold, type Connection } from "./connection";
import type { LoopTurns } from "./loop-turns";
import { hasBody, isChunked } from "../http/request";

/*
 * Node reads 64 KiB at a time and parses all of it at once: 2,000 short requests, or 10,000 chunks of a body, which takes 20 ms for each
 * connection that has something to read in a turn of the event loop. This code makes it parse a few at a time.
 */

/** Node's socket, with its parser, which the types lack. */
type HttpSocket = Socket & { parser?: Parser; _paused?: boolean };
interface Parser {
  /** Called with each head; the result is llhttp's next action. */
  onIncoming: (req: IncomingMessage, keepAlive: boolean) => number;
  resume(): void;
}
const STOP = -1;
const PAUSE = 21;

/** Bytes of a body in chunks that are parsed at a time: at most 700 chunks, which take a millisecond. */
const SLICE_BYTES = 4_096;
/** Maximum requests waiting on a connection before its parser pauses: the 64 KiB that Node reads at a time may hold thousands. */
const MAX_WAITING = 16;
/** Delay before parsing is retried after its address had too much work queued. */
const RETRY_MS = 20;

/**
 * Makes Node's parser stop if the connection is closed, and pause if many requests wait; on its own it first parses everything that was
 * read. If this turn of the event loop has no time left, pipelined requests wait for a later turn. Bodies in chunks are parsed in slices.
 */
export function pauseParserUnderLoad(connection: Connection, turns: LoopTurns): void {
  const socket: HttpSocket = connection.socket;
  const { parser } = socket;
  // Node resumes the socket after each request, and to read or drop a body; this listener runs after Node's own.
  socket.on("resume", () => {
    if (!connection.isHeld) return;
    hold(socket);
    readOn(connection, turns);
  });
  if (parser === undefined) return;
  const { onIncoming } = parser;
  parser.onIncoming = (req, keepAlive) => {
    const next = onIncoming(req, keepAlive);
    const waiting = connection.waiting.length;
    // Pausing within a body would leave it without a time limit, as Node reports a late request only once. So close the connection instead.
    if (waiting >= 2 * MAX_WAITING) socket.destroy();
    if (socket.destroyed) return STOP;
    if (next === 0 && isChunked(req)) {
      connection.chunked = req;
      return PAUSE;
    }
    const isOverloaded = waiting >= MAX_WAITING || (connection.started.length + waiting > 1 && turns.isSpent);
    return next === 0 && isOverloaded && !hasBody(req) ? PAUSE : next;
  };
}

/** Keeps the bytes that were not yet parsed when the parser paused. @returns whether the error only reports such a pause */
export function keepRest(connection: Connection, error: Error & ParseError, turns: LoopTurns): boolean {
  // Node considers the last parsed request incomplete until the parser continues, so this timeout is not the client's fault, except for a body
  // that has not ended: Node reports a late request only once.
  if (error.code === "ERR_HTTP_REQUEST_TIMEOUT") return connection.rest !== undefined && connection.chunked?.complete !== false;
  if (error.code !== "HPE_PAUSED" || error.rawPacket === undefined) return false;
  if (connection.isCut) return true; // refused at its head: the rest is not needed
  if (connection.chunked !== undefined) readInSlices(connection, turns);
  const { rest } = connection; // what follows a slice
  const unparsed = error.rawPacket.subarray(error.bytesParsed);
  connection.rest = rest === undefined ? unparsed : Buffer.concat([unparsed, rest]);
  hold(connection.socket);
  return true;
}
interface ParseError {
  code?: string;
  bytesParsed?: number;
  rawPacket?: Buffer;
}

/** Continues reading. Parses the rest of the last read first, a few requests at a time and in rotation with other addresses. */
export function readOn(connection: Connection, turns: LoopTurns): void {
  const { socket, holder, chunked } = connection;
  if (!connection.isHeld && !isFull(chunked)) socket.resume();
  if (connection.isScheduled || !canParseRest(connection)) return;
  connection.isScheduled = true;
  try {
    turns.run(holder, () => {
      connection.isScheduled = false;
      if (!canParseRest(connection)) return;
      parseRest(connection);
      readOn(connection, turns);
    });
  } catch {
    // Its address has too much work queued.
    setTimeout(() => {
      connection.isScheduled = false;
      readOn(connection, turns);
    }, RETRY_MS).unref();
  }
}

/** Whether the rest can be parsed now. If Node has paused the socket at its own limit, it resumes the socket itself. */
const canParseRest = ({ socket, waiting, rest, chunked, isPaused, isCut }: Connection): boolean =>
  rest !== undefined &&
  waiting.length === 0 &&
  !isPaused &&
  !isCut &&
  !socket.destroyed &&
  (socket as HttpSocket)._paused !== true &&
  !isFull(chunked);

/** Whether a body is read more slowly than it arrives. The socket is resumed when its reader wants more. */
const isFull = (req: IncomingMessage | undefined): boolean =>
  req !== undefined && !req.complete && req.readableLength >= req.readableHighWaterMark;

/** Passes the rest to Node's parser, as if it had just been read; in slices, if the connection has sent a body in chunks. */
function parseRest(connection: Connection): void {
  const { rest = Buffer.alloc(0), parseSlice } = connection;
  const socket: HttpSocket = connection.socket;
  socket.parser?.resume();
  if (parseSlice === undefined) {
    connection.rest = undefined;
    socket.emit("data", rest);
    return;
  }
  connection.rest = rest.length > SLICE_BYTES ? rest.subarray(SLICE_BYTES) : undefined;
  if (rest.length > 0) parseSlice(rest.subarray(0, SLICE_BYTES));
}

/** Takes over reading from Node, which would parse all that it reads at a time. */
function readInSlices(connection: Connection, turns: LoopTurns): void {
  if (connection.parseSlice !== undefined) return;
  const { socket } = connection;
  const [parse] = socket.listeners("data") as ((bytes: Buffer) => void)[];
  connection.parseSlice = parse;
  const [pause, resume] = [socket.listeners("pause"), socket.listeners("resume")] as (() => void)[][];
  for (const event of ["data", "pause", "resume"]) socket.removeAllListeners(event);
  // Node's parser reads the socket itself until there is another listener. Node then removes its own for these two events, which are still
  // needed to stop reading.
  socket.on("data", (bytes) => {
    connection.rest = connection.rest === undefined ? bytes : Buffer.concat([connection.rest, bytes]);
    hold(socket);
    readOn(connection, turns);
  });
  for (const listener of pause ?? []) socket.on("pause", listener);
  for (const listener of resume ?? []) socket.on("resume", listener);
}
