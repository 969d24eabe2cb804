import { randomUUID } from "node:crypto";
import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { linger, type Connection } from "./connection";
import { problemDetails, problemHeaders, toProblem } from "../http/problem";

/*
 * Responses to requests that never reach moleculer-web.
 */

/**
 * Refuses a request before any work on it, so throughput under overload stays near its peak.
 * @param headers those of every response
 * @returns size of the body, in bytes
 */
export function refuseAtOnce(
  res: ServerResponse,
  headers: Readonly<Record<string, string>>,
  id: string,
  refusal: unknown,
  basePath: string,
): number {
  const details = toProblem(refusal, id, basePath);
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
 * Responds to invalid HTTP and to requests that were not completed in time, if the socket is still writable. Closes the socket instead if
 * another response is due on the connection: the client would mistake the 400 for that response, or find it in the middle of that response.
 */
export function refuseUnreadable(socket: Socket, connection: Connection | undefined, basePath: string): void {
  const started = connection?.started ?? [];
  const isDue = started.some(({ req, readyAt, isStream }) => req.complete || readyAt !== undefined || isStream);
  if (!socket.writable || isDue) {
    socket.destroy();
    return;
  }
  const id = randomUUID();
  const body = JSON.stringify(problemDetails("BAD_REQUEST", id, basePath));
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
