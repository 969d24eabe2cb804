import type { IncomingMessage, ServerResponse } from "node:http";
import { problem } from "../../broker/errors";
import { cut, type Connection } from "./connection";

/**
 * Most pieces that a body may come in: 25 bytes each, where it is as long as it may be. Each costs as much as a hundred bytes of a
 * larger one, so that 100 KiB in chunks of one byte (RFC 9112, 7.1) would block the event loop for 160 ms.
 */
const MAX_PARTS = 4_096;

const tooMany = () => problem("BAD_REQUEST", "the body comes in too many parts");

/** By a property, and only of requests whose body may come in too many. */
const PARTS = Symbol("parts");
interface Parts {
  count: number;
  refuse?: (refusal: unknown) => void;
}
type Counted = IncomingMessage & { [PARTS]?: Parts };

const isChunked = ({ headers }: IncomingMessage): boolean => headers["transfer-encoding"] !== undefined;

/** Counts the pieces of a body, be they chunks or packets. Those beyond MAX_PARTS are dropped, and no more are read. */
export function countParts(req: Counted): void {
  if (!isChunked(req) && Number(req.headers["content-length"] ?? 0) <= MAX_PARTS) return;
  const push = req.push.bind(req);
  const parts: Parts = (req[PARTS] = { count: 0 });
  // Node hands each piece to `push` as soon as it is parsed; a listener for "data" would begin to read a body that nobody wants.
  req.push = (part: unknown, encoding) => {
    if (part === null || ++parts.count <= MAX_PARTS) return push(part, encoding);
    if (parts.count === MAX_PARTS + 1) parts.refuse?.(tooMany());
    return false;
  };
}

/**
 * Refuses a request whose body comes in too many pieces. What was read by then is not the whole, and whoever gets it must see that
 * there is a response already.
 * @param refuse responds; called once
 * @throws BAD_REQUEST where too many have come already
 */
export function limitParts(req: Counted, refuse: (refusal: unknown) => void): void {
  const parts = req[PARTS];
  if (parts === undefined) return;
  if (parts.count > MAX_PARTS) throw tooMany();
  parts.refuse = refuse;
}

/**
 * Where the response comes before the end of a body that is in chunks, or in too many pieces, it is the last of its connection: Node
 * would read them all, to find the next request behind them.
 */
export function closeBehindParts(req: Counted, res: ServerResponse, connection: Connection): void {
  const parts = req[PARTS];
  if (parts === undefined) return;
  const writeHead = res.writeHead.bind(res) as (...args: unknown[]) => ServerResponse;
  res.writeHead = (...args: unknown[]) => {
    if (!req.complete && (isChunked(req) || parts.count > MAX_PARTS)) {
      res.shouldKeepAlive = false;
      cut(connection);
    }
    return writeHead(...args);
  };
}
