import type { IncomingMessage } from "node:http";

/**
 * Most pieces that a body may come in: 25 bytes each, where it is as long as it may be. Each costs as much as a hundred bytes of a
 * larger one, so that 100 KiB in chunks of one byte (RFC 9112, 7.1) would block the event loop for 160 ms.
 */
const MAX_PARTS = 4_096;

/**
 * Refuses a request whose body comes in too many pieces, be they chunks or packets. The rest is dropped as it comes: what was read
 * by then is not the whole, and whoever gets it must see that there is a response already.
 * @param refuse responds; called once
 */
export function limitParts(req: IncomingMessage, refuse: () => void): void {
  if (req.headers["transfer-encoding"] === undefined && Number(req.headers["content-length"] ?? 0) <= MAX_PARTS) return;
  const push = req.push.bind(req);
  let parts = 0;
  // Node hands each piece to `push` as soon as it is parsed; a listener for "data" would begin to read a body that nobody wants.
  req.push = (part: unknown, encoding) => {
    if (part === null || ++parts <= MAX_PARTS) return push(part, encoding);
    if (parts === MAX_PARTS + 1) refuse();
    return true;
  };
}
