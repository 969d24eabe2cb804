import type { IncomingMessage } from "node:http";
import type { Config } from "../../config";

/*
 * What pages of other origins may send and read: the CORS protocol of WHATWG Fetch. Origins are matched exactly.
 */

const EXPOSED = "ETag, Link, Location, Retry-After, X-Request-Id, Idempotent-Replayed";

/** The same for every path: a method that a path does not know gets 405 there. */
const PERMISSIONS = {
  "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
  "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, X-Request-Id",
  "Access-Control-Max-Age": "600",
};

/** A cache must not show one origin's response to another. */
const VARY = { Vary: "Origin" };

const isAllowed = (origin: string | undefined, { corsOrigins }: Config): origin is string =>
  origin !== undefined && corsOrigins.includes(origin);

/** Of every response, where any origin is allowed. A foreign origin is allowed nothing: its browser keeps the response from the page. */
export function corsHeaders({ headers: { origin } }: IncomingMessage, config: Config): Readonly<Record<string, string>> {
  if (!isAllowed(origin, config)) return VARY;
  return { ...VARY, "Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": EXPOSED };
}

export const isPreflight = ({ headers }: IncomingMessage, { corsOrigins }: Config): boolean =>
  corsOrigins.length > 0 && headers.origin !== undefined && headers["access-control-request-method"] !== undefined;

/** Of the response to a preflight, besides. */
export const preflightHeaders = ({ headers: { origin } }: IncomingMessage, config: Config): Readonly<Record<string, string>> =>
  isAllowed(origin, config) ? PERMISSIONS : {};
