import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { hold, type Connection } from "./connection";
import type { LoopTurns } from "./loop-turns";
import { hasBody } from "./request";

/*
 * Node reads 64 KiB at a time, and parses all of it at once: 2,000 short requests, which take 20 ms. Here it is a few at a time.
 */

/** Node's socket, whose parser is not in its types. */
type HttpSocket = Socket & { parser?: Parser; _paused?: boolean };
interface Parser {
  /** Called with each head; what it returns is what llhttp does next. */
  onIncoming: (req: IncomingMessage, keepAlive: boolean) => number;
  resume(): void;
}
const STOP = -1;
const PAUSE = 21;

/** Most requests that wait on a connection before the parser pauses: Node reads 64 KiB at a time, which is thousands of requests. */
const MAX_WAITING = 16;

/**
 * Lets Node's parser stop where the connection is closed, and pause where much waits; it does neither by itself before it has parsed
 * all that was read. Where this turn of the event loop has no time left, what is pipelined waits for one of the next.
 */
export function attend(connection: Connection, turns: LoopTurns, readOn: () => void): void {
  const socket: HttpSocket = connection.socket;
  const { parser } = socket;
  // Node reads on after each request, and where a body is wanted or dropped; this comes after its own listener.
  socket.on("resume", () => {
    if (!connection.isHeld) return;
    hold(socket);
    readOn();
  });
  if (parser === undefined) return;
  const { onIncoming } = parser;
  parser.onIncoming = (req, keepAlive) => {
    const next = onIncoming(req, keepAlive);
    const waiting = connection.waiting.length;
    // A paused body would have no time limit: Node tells of a late request once. Who has so many unanswered is cut off instead.
    if (waiting >= 2 * MAX_WAITING) socket.destroy();
    if (socket.destroyed) return STOP;
    const isMuch = waiting >= MAX_WAITING || (connection.started.length + waiting > 1 && turns.isSpent);
    return next === 0 && isMuch && !hasBody(req) ? PAUSE : next;
  };
}

/** Keeps what was read and not parsed when the parser paused. @returns whether that is all there is to the error */
export function keepRest(connection: Connection, error: Error & ParseError): boolean {
  // The last head is parsed, and its request not complete for Node until the parser goes on: its client need not hurry.
  if (error.code === "ERR_HTTP_REQUEST_TIMEOUT") return connection.rest !== undefined;
  if (error.code !== "HPE_PAUSED" || error.rawPacket === undefined) return false;
  connection.rest = error.rawPacket.subarray(error.bytesParsed);
  hold(connection.socket);
  return true;
}
interface ParseError {
  code?: string;
  bytesParsed?: number;
  rawPacket?: Buffer;
}

/** Whether the rest can be parsed now. Where Node's own bound is reached, it resumes the socket by itself. */
export const canParseRest = ({ socket, waiting, rest, isCut }: Connection): boolean =>
  rest !== undefined && waiting.length === 0 && !isCut && !socket.destroyed && (socket as HttpSocket)._paused !== true;

/** Hands the rest to Node's parser, as if it had just been read. */
export function parseRest(connection: Connection): void {
  const { rest } = connection;
  const socket: HttpSocket = connection.socket;
  connection.rest = undefined;
  socket.parser?.resume();
  socket.emit("data", rest);
}
