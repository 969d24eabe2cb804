import { randomUUID } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { Config } from "../../config";
import type { Body } from "./route";

/** A token of RFC 9110, section 5.6.2. */
const REQUEST_ID = /^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$/;

/** The client's own id where it is a token of at most 128 characters: it gets into logs and headers. */
export function requestId(req: IncomingMessage): string {
  const given = req.headers["x-request-id"];
  const id = typeof given === "string" && REQUEST_ID.test(given) ? given : randomUUID();
  req.headers["x-request-id"] = id; // where moleculer-web takes it for the context
  delete req.headers["x-correlation-id"];
  return id;
}

/** Without the query, in which anything may stand. */
export const pathOf = (req: IncomingMessage & { originalUrl?: string }): string => (req.originalUrl ?? req.url ?? "/").split("?")[0] ?? "/";

/** RFC 9112, 6.3. */
export const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers["transfer-encoding"] !== undefined || (headers["content-length"] ?? "0") !== "0";

/** What load balancers ask, which costs nothing: it is answered whatever else is asked. */
export const isProbe = (req: IncomingMessage): boolean => /^\/health\/(live|ready)$/.test(pathOf(req));

/** The id of `GET /products/{id}`, where nothing about the request asks for more than that. */
export function hotProduct({ method, url = "", headers }: IncomingMessage): string | undefined {
  if (method !== "GET" || headers.origin !== undefined || headers.host === undefined) return undefined;
  return /^\/products\/([1-9]\d{0,15})$/.exec(url)?.[1];
}

export const isPreflight = (req: IncomingMessage, config: Config): boolean =>
  config.corsOrigins.length > 0 && req.headers.origin !== undefined && req.headers["access-control-request-method"] !== undefined;

/** Whether a body is of a type that its route reads. */
export function isAcceptable(req: IncomingMessage, { form }: Body): boolean {
  const type = (req.headers["content-type"] ?? "").split(";")[0]?.trim().toLowerCase() ?? "";
  if (/^application\/([\w.-]+\+)?json$/.test(type)) return true;
  return form !== undefined && type === "application/x-www-form-urlencoded";
}
