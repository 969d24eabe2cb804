import type { IncomingMessage } from "node:http";
import type { Config } from "../../config";

/*
 * What pages of other origins may send and read, by the CORS protocol of WHATWG Fetch. Origins are matched exactly.
 */

const EXPOSED = "ETag, Link, Location, Retry-After, X-Request-Id, Idempotent-Replayed";

/** The same for every path: a path responds with 405 to a method that it does not support. */
const PERMISSIONS = {
  "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
  "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, X-Request-Id",
  "Access-Control-Max-Age": "600",
};

/** A cache must not show one origin's response to another. */
const VARY = { Vary: "Origin" };

const isAllowed = (origin: string | undefined, { corsOrigins }: Config): origin is string =>
  origin !== undefined && corsOrigins.includes(origin);

/** Headers of every response, used if any origins are configured. For other origins, browsers withhold the response from the page. */
export function corsHeaders({ headers: { origin } }: IncomingMessage, config: Config): Readonly<Record<string, string>> {
  if (!isAllowed(origin, config)) return VARY;
  return { ...VARY, "Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": EXPOSED };
}

export const isPreflight = ({ headers }: IncomingMessage, { corsOrigins }: Config): boolean =>
  corsOrigins.length > 0 && headers.origin !== undefined && headers["access-control-request-method"] !== undefined;

/** Additional headers of the response to a preflight. */
export const preflightHeaders = ({ headers: { origin } }: IncomingMessage, config: Config): Readonly<Record<string, string>> =>
  isAllowed(origin, config) ? PERMISSIONS : {};
