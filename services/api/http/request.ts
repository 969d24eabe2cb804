import { randomUUID } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { problem, type Problem } from "../../../broker/errors";

/** A token of RFC 9110, section 5.6.2. */
const REQUEST_ID = /^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$/;

/** The client's own request id if it is a token of at most 128 characters, since it is written to logs and headers; else a new one. */
export function requestId(req: IncomingMessage): string {
  const given = req.headers["x-request-id"];
  return typeof given === "string" && REQUEST_ID.test(given) ? given : randomUUID();
}

/** Maximum size of a body, compressed or not. */
export const BODY_LIMIT_BYTES = 102_400;

/** Maximum header fields of a request, as in Apache (LimitRequestFields): 16 KiB of short ones take as long to parse as ten requests. */
const MAX_HEADERS = 100;
/** What is needed of a request with too many header fields, until it is refused. */
const KEPT_HEADERS = ["connection", "content-length", "expect", "host", "transfer-encoding", "x-request-id"];

/** Set on requests that had too many header fields. */
const EXCESS = Symbol("excess");
type Excessive = IncomingMessage & { [EXCESS]?: true };

/** Drops the header fields of a request that will be refused for their number: they take 130 KB while it waits for its turn. */
export function dropExcessHeaders(req: Excessive): void {
  if (req.rawHeaders.length <= 2 * MAX_HEADERS) return;
  req.headers = Object.fromEntries(KEPT_HEADERS.map((name) => [name, req.headers[name]]));
  req.rawHeaders = [];
  req[EXCESS] = true;
}

/** @throws BAD_REQUEST if there were too many header fields */
export function checkHeaders(req: Excessive): void {
  if (req[EXCESS]) throw problem("BAD_REQUEST", `the request has more than ${MAX_HEADERS} header fields`);
}

/** The methods of the API. */
export const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/** The target of a server-wide request (RFC 9110, 7.1). */
export const WHOLE_SERVER = "*";

/** Brings a target in absolute form, as proxies may send it, into origin form (RFC 9112, 3.2.2). */
export function useOriginForm(req: IncomingMessage): void {
  if (req.url === undefined || req.url.startsWith("/")) return;
  const authority = /^https?:\/\/[^/?#]*/i.exec(req.url)?.[0];
  if (authority === undefined) return;
  const rest = req.url.slice(authority.length);
  req.url = rest.startsWith("/") ? rest : `/${rest}`;
}

/** A registered name, an IPv4 address, an IPv6 address in brackets, or nothing, and a port (RFC 9110, 7.2; RFC 3986, 3.2.2). */
const HOST = /^(?:\[[\da-f:.]+\]|(?:[\w.~!$&'()*+,;=-]|%[\da-f]{2})*)(?::\d*)?$/i;

/**
 * Why a request can't be served, judged by its Host header and target (RFC 9112, 3.2): two Host headers might mean one thing to a proxy and
 * another one here.
 */
export function targetRefusal({ headers, httpVersion, method, rawHeaders, url = "" }: IncomingMessage): string | undefined {
  let hosts = 0;
  for (let i = 0; i < rawHeaders.length; i += 2) if (rawHeaders[i]?.length === 4 && rawHeaders[i]?.toLowerCase() === "host") hosts++;
  if (hosts > 1) return "only one Host header is allowed";
  if (headers.host === undefined ? httpVersion === "1.1" : !HOST.test(headers.host)) return "a Host header with a host is needed";
  return url.startsWith("/") || (url === WHOLE_SERVER && method === "OPTIONS") ? undefined : "the target must be a path";
}

/** The path without the query, which may contain anything. */
export const pathOf = (req: IncomingMessage): string => halves(req.url ?? "/")[0];

/** Whether a request has a body, by its headers (RFC 9112, 6.3). */
export const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers["transfer-encoding"] !== undefined || (headers["content-length"] ?? "0") !== "0";

/** Whether a request has a body in chunks (RFC 9112, 7.1): Node accepts no other transfer coding alone. */
export const isChunked = ({ headers }: IncomingMessage): boolean => headers["transfer-encoding"] !== undefined;

/**
 * Splits a request target into its path and its query, as a flat object. It has no prototype, so `constructor` and `__proto__` are
 * ordinary names.
 * @throws BAD_REQUEST if the query is not percent-encoded UTF-8
 */
export function splitTarget(target: string): { url: string; query: Record<string, unknown> } {
  const [url, search] = halves(target);
  if (search.includes("%")) checkEscapes(search);
  const query = Object.create(null) as Record<string, string | string[]>;
  for (const [name, value] of new URLSearchParams(search)) {
    const given = query[name];
    if (given === undefined) query[name] = value;
    else if (typeof given === "string") query[name] = [given, value];
    else given.push(value);
  }
  return { url, query };
}

/** URLSearchParams decodes invalid UTF-8 to U+FFFD, at ten times the cost: 16 KiB would block the event loop for 50 ms. */
function checkEscapes(search: string): void {
  try {
    decodeURIComponent(search);
  } catch {
    throw problem("BAD_REQUEST", "the query has a percent sign that does not start an encoded UTF-8 character");
  }
}

function halves(target: string): [path: string, search: string] {
  const at = target.indexOf("?");
  return at < 0 ? [target, ""] : [target.slice(0, at), target.slice(at + 1)];
}

/** Whether it is a load balancer's health check. These cost almost nothing, so no limit applies to them. */
export const isProbe = (req: IncomingMessage): boolean => /^\/health\/(live|ready)$/.test(pathOf(req));

/** The content codings that are decoded (RFC 9110, 8.4.1), one at most: each further one would multiply what a small body can expand to. */
export const CODINGS = ["gzip", "br", "deflate"] as const;
export type Coding = (typeof CODINGS)[number];
const KNOWN_CODINGS = new Set(["", "identity", ...CODINGS]);

/** JSON and forms must be UTF-8 (RFC 8259, 8.1; RFC 6749, appendix B), with or without a charset in their type, which may be `utf8`. */
const isUtf8 = ({ headers }: IncomingMessage): boolean =>
  /^(utf-?8)?$/i.test(/;\s*charset\s*=\s*"?([^\s;"]*)/i.exec(headers["content-type"] ?? "")?.[1] ?? "");
const utf8 = new TextDecoder("utf-8", { fatal: true });

/** An empty body counts as an empty object. @throws MALFORMED_JSON */
export function parseJson(body: Buffer): unknown {
  if (body.length === 0) return {};
  try {
    return JSON.parse(utf8.decode(body));
  } catch {
    throw problem("MALFORMED_JSON", "the body is not JSON");
  }
}

const mediaType = ({ headers }: IncomingMessage): string => (headers["content-type"] ?? "").split(";")[0]?.trim().toLowerCase() ?? "";
const isJson = (type: string): boolean => /^application\/([\w.-]+\+)?json$/.test(type);
const isForm = (type: string): boolean => type === "application/x-www-form-urlencoded";
const isDecodable = ({ headers }: IncomingMessage): boolean => KNOWN_CODINGS.has((headers["content-encoding"] ?? "").toLowerCase());

/**
 * Removes the content coding of a body, which the caller then decodes: the body parser would decode it as it arrives, however many bodies
 * arrive at the same moment.
 */
export function takeCoding({ headers }: IncomingMessage): Coding | undefined {
  const coding = CODINGS.find((known) => known === headers["content-encoding"]?.toLowerCase());
  delete headers["content-encoding"];
  return coding;
}

const unwanted = new WeakSet<IncomingMessage>();

/** Ignores the body of a request whose route takes none: it is neither read nor refused. */
export function ignoreBody(req: IncomingMessage): void {
  unwanted.add(req);
}

const isReadable = (req: IncomingMessage): boolean => !unwanted.has(req) && isDecodable(req);

export const isFormBody = (req: IncomingMessage): boolean => isReadable(req) && isForm(mediaType(req));

/** Predicate for the body parser; other bodies are not read. */
export const isKnownBody = (req: IncomingMessage): boolean => isFormBody(req) || (isReadable(req) && isJson(mediaType(req)));

/**
 * Why the route can't read the request's body, judged by the headers alone; undefined if it can.
 * @param takesForm whether it accepts a form, as well as JSON
 */
export function bodyRefusal(req: IncomingMessage, takesForm: boolean): Problem | undefined {
  // The Accept-Encoding header distinguishes a wrong coding from a wrong type (RFC 9110, 12.5.3).
  if (!isDecodable(req))
    return problem("UNSUPPORTED_MEDIA_TYPE", `the body may have one of the content codings ${CODINGS.join(", ")}, or none`, {
      acceptEncoding: CODINGS.join(", "),
    });
  const type = mediaType(req);
  if (!isJson(type) && !(takesForm && isForm(type)))
    return problem("UNSUPPORTED_MEDIA_TYPE", `the body must be application/json${takesForm ? " or a form" : ""}`);
  return isUtf8(req) ? undefined : problem("UNSUPPORTED_MEDIA_TYPE", `${isJson(type) ? "JSON" : "a form"} must be in UTF-8`);
}
