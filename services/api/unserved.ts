import { randomUUID } from "node:crypto";
import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { problemDetails, RETRY_AFTER } from "./problem";

/*
 * Answers to what never gets as far as moleculer-web.
 */

const REFUSAL = {
  "Content-Type": "application/problem+json",
  "Cache-Control": "no-store",
  "Retry-After": String(RETRY_AFTER),
  "X-Content-Type-Options": "nosniff",
};

/** Before any work is put into it, so that what is served under overload stays near the peak. */
export function refuseAtOnce(res: ServerResponse, id: string): void {
  const body = JSON.stringify(problemDetails("SERVICE_UNAVAILABLE", id));
  res.writeHead(503, { ...REFUSAL, "X-Request-Id": id, "Content-Length": Buffer.byteLength(body) }).end(body);
}

/** Milliseconds in which a client can read such an answer; one that keeps its side open does not keep ours. */
const LINGER = 1_000;

/** What is no HTTP at all, or does not come to an end, gets an answer too, where the socket still takes one. */
export function answerUnreadable(_error: Error, socket: Socket): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const id = randomUUID();
  const body = JSON.stringify(problemDetails("BAD_REQUEST", id));
  const head = [
    "HTTP/1.1 400 Bad Request",
    "Connection: close",
    "Content-Type: application/problem+json",
    `Content-Length: ${Buffer.byteLength(body)}`,
    `X-Request-Id: ${id}`,
  ];
  socket.end(`${head.join("\r\n")}\r\n\r\n${body}`);
  setTimeout(() => socket.destroy(), LINGER).unref();
}
