import { randomUUID } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { problem, type Problem } from "../../broker/errors";
import { ID_LENGTH, parseId } from "../../contracts/contract";
import type { Body } from "./route";

/** A token of RFC 9110, section 5.6.2. */
const REQUEST_ID = /^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$/;

/** The client's own id where it is a token of at most 128 characters: it gets into logs and headers. */
export function requestId(req: IncomingMessage): string {
  const given = req.headers["x-request-id"];
  return typeof given === "string" && REQUEST_ID.test(given) ? given : randomUUID();
}

/** Without the query, in which anything may stand. */
export const pathOf = (req: IncomingMessage): string => halves(req.url ?? "/")[0];

/** RFC 9112, 6.3. */
export const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers["transfer-encoding"] !== undefined || (headers["content-length"] ?? "0") !== "0";

/** A target as its path and its query (BAD_REQUEST where that is no escaped UTF-8): flat, and without a prototype, so that `constructor` and `__proto__` are names like others. */
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

/** URLSearchParams takes what is no UTF-8 for U+FFFD, at ten times the cost: 16 KiB of it would block the event loop for 50 ms. */
function checkEscapes(search: string): void {
  try {
    decodeURIComponent(search);
  } catch {
    throw problem("BAD_REQUEST", "the query has a percent sign that begins no escaped UTF-8 character");
  }
}

function halves(target: string): [path: string, search: string] {
  const at = target.indexOf("?");
  return at < 0 ? [target, ""] : [target.slice(0, at), target.slice(at + 1)];
}

/** What load balancers ask, which costs nothing: it is answered whatever else is asked. */
export const isProbe = (req: IncomingMessage): boolean => /^\/health\/(live|ready)$/.test(pathOf(req));

const PRODUCTS = "/products/";

/** The id of `GET /products/{id}`, where nothing about the request asks for more than that. */
export function hotProduct({ method, url = "", headers }: IncomingMessage): string | undefined {
  if (method !== "GET" || headers.origin !== undefined || headers.host === undefined) return undefined;
  return url.length === PRODUCTS.length + ID_LENGTH && url.startsWith(PRODUCTS) ? parseId(url.slice(PRODUCTS.length)) : undefined;
}

/** The content codings that are undone (RFC 9110, 8.4.1), one at most: each more would multiply what a small body can expand to. */
const CODINGS = ["gzip", "br", "deflate"];
const KNOWN_CODINGS = new Set(["", "identity", ...CODINGS]);

/** JSON is UTF-8 (RFC 8259, 8.1), whether its type says so or not. */
const isUtf8 = ({ headers }: IncomingMessage): boolean =>
  /^(utf-?8)?$/i.test(/;\s*charset\s*=\s*"?([^\s;"]*)/i.exec(headers["content-type"] ?? "")?.[1] ?? "");
const utf8 = new TextDecoder("utf-8", { fatal: true });

/** @throws MALFORMED_JSON; nothing at all is taken for an object without members */
export function parseJson(body: Buffer): unknown {
  if (body.length === 0) return {};
  try {
    return JSON.parse(utf8.decode(body));
  } catch {
    throw problem("MALFORMED_JSON", "the body is not JSON"); // whatever it is instead
  }
}

const mediaType = ({ headers }: IncomingMessage): string => (headers["content-type"] ?? "").split(";")[0]?.trim().toLowerCase() ?? "";
const isJson = (type: string): boolean => /^application\/([\w.-]+\+)?json$/.test(type);
const isForm = (type: string): boolean => type === "application/x-www-form-urlencoded";
const isDecodable = ({ headers }: IncomingMessage): boolean => KNOWN_CODINGS.has((headers["content-encoding"] ?? "").toLowerCase());

const unwanted = new WeakSet<IncomingMessage>();

/** The body of a request whose route takes none is not read, let alone refused. */
export function ignoreBody(req: IncomingMessage): void {
  unwanted.add(req);
}

const isReadable = (req: IncomingMessage): boolean => !unwanted.has(req) && isDecodable(req);

/** For the parsers of bodies: what they do not take is not read. */
export const isJsonBody = (req: IncomingMessage): boolean => isReadable(req) && isJson(mediaType(req));
export const isFormBody = (req: IncomingMessage): boolean => isReadable(req) && isForm(mediaType(req));

/** Why the body of a request can't be read by its route, judged by the head alone; undefined where it can. */
export function bodyRefusal(req: IncomingMessage, { form }: Body): Problem | undefined {
  // The header tells a wrong coding from a wrong type (RFC 9110, 12.5.3).
  if (!isDecodable(req))
    return problem("UNSUPPORTED_MEDIA_TYPE", `the body may have one of the content codings ${CODINGS.join(", ")}, or none`, {
      acceptEncoding: CODINGS.join(", "),
    });
  const type = mediaType(req);
  if (isJson(type) && !isUtf8(req)) return problem("UNSUPPORTED_MEDIA_TYPE", "JSON must be in UTF-8");
  if (isJson(type) || (form !== undefined && isForm(type))) return undefined;
  return problem("UNSUPPORTED_MEDIA_TYPE", `the body must be application/json${form === undefined ? "" : " or a form"}`);
}
