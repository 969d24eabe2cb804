import type { IncomingMessage, ServerResponse } from "node:http";
import { problem } from "../../../broker/errors";
import { isChunked } from "../http/request";
import { cut, type Connection } from "./connection";

/**
 * Maximum parts, chunks or packets, that a body may arrive in: 25 bytes each for a body of maximum length. Each part costs as much as a
 * hundred bytes of a larger one: 100 KiB in chunks of one byte (RFC 9112, 7.1) would block the event loop for 160 ms.
 */
const MAX_PARTS = 4_096;

/** Smaller parts are merged into blocks of this size: on its own, a part of one byte takes 500 bytes of memory until the body is read. */
const BLOCK_BYTES = 4_096;
/** Bodies of a known length up to this one are left alone: even one byte at a time they take little. */
const SMALL_BYTES = 512;

const tooMany = () => problem("BAD_REQUEST", "the body arrives in too many parts");

/** Set only on requests whose body is not small. */
const PARTS = Symbol("parts");
interface Parts {
  count: number;
  /** Its first `bytes` bytes are small parts that have not been passed to the body's reader yet. */
  block: Buffer | undefined;
  bytes: number;
  refuse?: (refusal: unknown) => void;
}
type Counted = IncomingMessage & { [PARTS]?: Parts };

/** Counts the parts of a body and merges small ones. Parts beyond MAX_PARTS are dropped, and no more are read. */
export function mergeParts(req: Counted): void {
  if (!isChunked(req) && Number(req.headers["content-length"] ?? 0) <= SMALL_BYTES) return;
  const push = req.push.bind(req);
  const parts: Parts = (req[PARTS] = { count: 0, block: undefined, bytes: 0 });
  // Node calls `push` with each part as soon as it is parsed. A listener for "data" would start reading a body that may not be needed.
  req.push = (part: Buffer | null, encoding) => {
    if (part !== null && ++parts.count > MAX_PARTS) {
      if (parts.count === MAX_PARTS + 1) parts.refuse?.(tooMany());
      return false;
    }
    if (part !== null && parts.bytes + part.length <= BLOCK_BYTES) {
      parts.block ??= Buffer.allocUnsafe(BLOCK_BYTES);
      parts.bytes += part.copy(parts.block, parts.bytes);
      return true;
    }
    if (parts.block !== undefined) push(parts.block.subarray(0, parts.bytes));
    parts.block = undefined;
    parts.bytes = 0;
    return push(part, encoding);
  };
}

/**
 * Refuses a request whose body arrives in too many parts. The route's handler may still be called with the truncated body, so it must
 * check whether a response has been sent already.
 * @param refuse sends the response; called once
 * @throws BAD_REQUEST if too many parts have arrived already
 */
export function limitParts(req: Counted, refuse: (refusal: unknown) => void): void {
  const parts = req[PARTS];
  if (parts === undefined) return;
  if (parts.count > MAX_PARTS) throw tooMany();
  parts.refuse = refuse;
}

/**
 * Closes the connection after a response that is sent before the end of a body in chunks, or in too many parts: Node would read all of
 * the body to find the next request.
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
