import { randomUUID } from "node:crypto";
import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { linger, type Connection } from "./connection";
import { problemDetails, problemHeaders, toProblem } from "./problem";

/*
 * Responses to what never gets as far as moleculer-web.
 */

/**
 * Before any work is put into it, so that what is served under overload stays near the peak.
 * @param headers those of every response
 * @returns the bytes of its body
 */
export function refuseAtOnce(res: ServerResponse, headers: Readonly<Record<string, string>>, id: string, refusal: unknown): number {
  const details = toProblem(refusal, id);
  const body = JSON.stringify(details);
  const bytes = Buffer.byteLength(body);
  res
    .writeHead(details.status, {
      ...headers,
      "Content-Type": "application/problem+json",
      "Cache-Control": "no-store",
      ...problemHeaders(details, refusal),
      "Content-Length": bytes,
    })
    .end(body);
  return bytes;
}

/**
 * What is no HTTP at all, or does not come to an end, gets a response too, where the socket still takes one. Not where another
 * response is due on its connection: this one would be taken for it, or get into the middle of it.
 */
export function refuseUnreadable(_error: Error, socket: Socket, connection: Connection | undefined): void {
  const started = connection?.started ?? [];
  const isDue = started.some(({ req, madeAt, isStream }) => req.complete || madeAt !== undefined || isStream);
  if (!socket.writable || isDue) {
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
  linger(socket);
}
