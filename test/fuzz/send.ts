import http from "node:http";
import type { Socket } from "node:net";
import type { EncodedRequest } from "./request";

export interface Response {
  status: number;
  headers: Headers;
  text: string;
}

const TIMEOUT_MS = 30_000;
/** The audit may take two minutes. */
const AUDIT_TIMEOUT_MS = 130_000;
/** The last request on each connection, since a missing response may be the fault of the request before it. */
const last = new WeakMap<Socket, string>();
/** An event stream is read only for this long, in ms. */
const STREAM_MS = 30;

/** @throws if there is no response, or an incomplete one */
export function send(
  url: string,
  agent: http.Agent,
  { method, target, headers, body, chunked, hasHost }: EncodedRequest,
): Promise<Response> {
  const { hostname, port } = new URL(url);
  const timeout = /^\/admin\/(consistency|repair)/.test(target) ? AUDIT_TIMEOUT_MS : TIMEOUT_MS;
  return new Promise((resolve, reject) => {
    const request = http.request({
      hostname,
      port,
      agent,
      method,
      path: target,
      setHost: hasHost,
      timeout,
      joinDuplicateHeaders: true,
    });
    for (const [name, value] of headers) request.appendHeader(name, value);
    request.on("timeout", () => request.destroy(new Error(`no response within ${timeout} ms`)));
    let before = "nothing";
    request.on("socket", (socket) => {
      before = last.get(socket) ?? before;
      last.set(socket, `${method} ${target.slice(0, 100)}`);
    });
    request.on("error", (error) => {
      reject(new Error(`${error.message}; the previous request on its connection: ${before}`, { cause: error }));
    });
    request.on("response", (response) => {
      const chunks: Buffer[] = [];
      const done = (): void => {
        const all = new Headers();
        for (let i = 0; i < response.rawHeaders.length; i += 2) all.append(response.rawHeaders[i] ?? "", response.rawHeaders[i + 1] ?? "");
        resolve({ status: response.statusCode ?? 0, headers: all, text: Buffer.concat(chunks).toString() });
      };
      const isStream = response.headers["content-type"] === "text/event-stream";
      if (isStream)
        setTimeout(() => {
          done();
          response.destroy();
        }, STREAM_MS);
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", done);
      response.on("error", (error) => {
        if (!isStream) reject(error);
      });
    });
    if (body === undefined) request.end();
    else if (chunked) {
      request.setHeader("Transfer-Encoding", "chunked"); // for some methods Node would otherwise send the body without framing
      const middle = Math.floor(body.length / 2);
      request.write(body.subarray(0, middle));
      request.end(body.subarray(middle));
    } else {
      request.setHeader("Content-Length", body.length);
      request.end(body);
    }
  });
}
