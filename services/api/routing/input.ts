import type { TSchema } from "@sinclair/typebox";
import { invalid, problem } from "../../../broker/errors";
import { coerce, matches } from "../../../broker/validator";
import { parseId, type ActionContract } from "../../../contracts/contract";
import type { ErrorCode } from "../../../contracts/errors";
import { IdempotencyKey } from "../../../contracts/orders";
import type { Tag } from "../../../contracts/products";
import type { Requester } from "../../../mixins/batching";

/** The content of a request, not yet validated. */
export interface Input {
  method: string | undefined;
  path: Readonly<Record<string, string>>;
  query: Readonly<Record<string, unknown>>;
  body: unknown;
  headers: Readonly<Record<string, string | string[] | undefined>>;
  /** Who sends the request; limits are counted by its address. */
  requester: Requester;
}

/** An action's param that the route supplies from the path, a header or the connection. */
export interface Supply {
  read: (input: Input) => unknown;
  /** The error code if the value is invalid. */
  code: ErrorCode;
  /** Set if the value comes from a header: for the OpenAPI document. */
  header?: { name: string; description: string };
}

const nothing = (code: ErrorCode) => problem(code, "no resource has this id");

/** The id in a path. Anything but a UUID gets 404 with the given code. */
export function pathId(input: Pick<Input, "path">, code: ErrorCode): string {
  const id = parseId(input.path["id"] ?? "");
  if (id === undefined) throw nothing(code);
  return id;
}

/** `pathId` as a `Supply`, for `ROUTES`. */
export const idOr = (code: ErrorCode): Supply => ({ read: (input) => pathId(input, code), code });

/** The outbox row id in a path. Anything but a positive integer gets 404. */
export const ROW_ID: Supply = {
  read: ({ path }) => {
    const text = path["id"] ?? "";
    if (!/^[1-9][0-9]*$/.test(text) || !Number.isSafeInteger(Number(text))) throw nothing("NOT_FOUND");
    return Number(text);
  },
  code: "NOT_FOUND",
};

/** The client's address: failed logins are counted by it, and the audit log records it. */
export const ADDRESS: Supply = { read: ({ requester }) => requester.address, code: "TOO_MANY_REQUESTS" };

/**
 * A JSON object as params of an action, plus the params that the route itself supplies (an id from the path, a header).
 * A body that contains one of those is refused, and so is a query: `?apply=false` beside a body would have no effect.
 */
export function bodyParams(input: Input, supplied: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  refuseQuery(input);
  const { body } = input;
  if (typeof body !== "object" || body === null || Array.isArray(body)) throw invalid("body", "must be a JSON object");
  for (const name of Object.keys(supplied)) if (Object.hasOwn(body, name)) throw invalid(name, "is not a known field");
  return { ...body, ...present(supplied) };
}

/**
 * Query parameters as params of an action.
 * @throws BAD_REQUEST for a parameter that the action does not know: a misspelled filter must not return everything
 */
export function queryParams(input: Input, contract: ActionContract, supplied: Readonly<Record<string, unknown>> = {}) {
  const isKnown = (name: string) => schemaOf(contract, name) !== undefined && !Object.hasOwn(supplied, name);
  const params: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(input.query)) {
    if (!isKnown(name)) throw unknownParameter(name);
    params[name] = value;
  }
  Object.assign(params, present(supplied));
  for (const [name, value] of Object.entries(params)) {
    // Ajv would accept "0x10" and " 5" as numbers.
    const isNumber = /^(integer|number)$/.test(String(schemaOf(contract, name)?.["type"]));
    if (isNumber && typeof value === "string" && !/^-?\d{1,16}(\.\d{1,16})?$/.test(value))
      throw problem("BAD_REQUEST", `the query parameter ${name} must be a number`);
  }
  const wrong = coerce(contract.params, params);
  if (wrong !== undefined)
    throw problem("BAD_REQUEST", `the query parameter ${wrong.field} ${wrong.message}`, wrong.allowed && { allowed: wrong.allowed });
  return params;
}

/** @throws BAD_REQUEST if there is any query parameter, for routes and methods that take none */
export function refuseQuery({ query }: Pick<Input, "query">): void {
  for (const name of Object.keys(query)) throw unknownParameter(name);
}

const unknownParameter = (name: string) => problem("BAD_REQUEST", `there is no query parameter ${JSON.stringify(name.slice(0, 50))}`);

/** The schema of an action's param; undefined if the action does not know it. */
function schemaOf(contract: ActionContract, name: string): TSchema | undefined {
  const properties = contract.params["properties"] as Record<string, TSchema>; // every contract is an object
  return Object.hasOwn(properties, name) ? properties[name] : undefined;
}

const present = (values: Readonly<Record<string, unknown>>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));

/** The Idempotency-Key of a request; undefined if there is none. @throws BAD_REQUEST if it is invalid */
export function idempotencyKey(input: Pick<Input, "headers">): string | undefined {
  const key = input.headers["idempotency-key"];
  if (key === undefined) return undefined;
  if (!matches(IdempotencyKey, key)) throw problem("BAD_REQUEST", "the Idempotency-Key must be 1 to 255 visible ASCII characters");
  return key;
}

/** For an action that takes the key as a param. Routes with `takesIdempotencyKey` have it in the OpenAPI document. */
export const IDEMPOTENCY_KEY: Supply = { read: idempotencyKey, code: "BAD_REQUEST" };

/** How many events of a stream the client has seen, which is the id of the last one (WHATWG HTML, 9.2.4). */
function lastEventId(input: Input): number {
  const id = input.headers["last-event-id"] ?? "0";
  if (typeof id !== "string" || !/^\d{1,15}$/.test(id)) throw problem("BAD_REQUEST", "the Last-Event-ID must be the id of an event");
  return Number(id);
}

export const LAST_EVENT_ID: Supply = {
  read: lastEventId,
  code: "BAD_REQUEST",
  header: { name: "Last-Event-ID", description: "The id of the last event received: the stream continues after it." },
};

/** Maximum entity tags of a header that are compared. */
const MAX_TAGS = 100;

/** The entity tags of a list header (RFC 9110, 8.8.3); undefined if the header is absent or `*`. */
function entityTags(header: string | string[] | undefined): { weak: boolean; tag: string }[] | undefined {
  const text = Array.isArray(header) ? header.join(",") : header;
  if (text === undefined || text.trim() === "*") return undefined;
  const tags: { weak: boolean; tag: string }[] = [];
  // One at a time: a header of 16 KiB may have 8,000 tags, and finding them all would take 2 ms.
  for (const [, weak, tag = ""] of text.matchAll(/(W\/)?"([^"]*)"/g)) if (tags.push({ weak: weak !== undefined, tag }) === MAX_TAGS) break;
  return tags;
}

/** The entity tags that `If-Match` allows, by strong comparison (RFC 9110, 13.1.1); undefined if it allows any. */
const strongTags = (input: Input): string[] | undefined =>
  entityTags(input.headers["if-match"])?.flatMap(({ weak, tag }) => (weak ? [] : tag));

const versions = (input: Input): number[] | undefined =>
  strongTags(input)?.flatMap((tag) => (/^[0-9]{1,15}$/.test(tag) ? Number(tag) : []));

const productTags = (input: Input): Tag[] | undefined =>
  strongTags(input)?.flatMap((tag) => {
    const [, edits, version] = /^([0-9]{1,15})-([0-9]{1,15})$/.exec(tag) ?? [];
    return version === undefined ? [] : { edits: Number(edits), version: Number(version) };
  });

const ifMatch = (read: Supply["read"], description: string): Supply => ({
  read,
  code: "PRECONDITION_FAILED",
  header: { name: "If-Match", description },
});
export const IF_MATCH = ifMatch(versions, "An ETag: the change is made only if it is still current.");
export const IF_UNEDITED = ifMatch(
  productTags,
  "An ETag: the change is made only if the product has not been edited since. Sales don't count as edits.",
);
export const IF_UNCHANGED = ifMatch(productTags, "An ETag: the change is made only if it is still current. A sale makes it stale.");

/** Whether a request of the API's methods changes something. */
export const isWrite = (method: string | undefined): boolean => method !== "GET" && method !== "HEAD";

/**
 * Checks the preconditions of a valid write that its action does not evaluate: no ETag can match a resource that has none.
 * @param takesIfMatch whether the action evaluates If-Match
 * @throws PRECONDITION_FAILED (RFC 9110, 13.1)
 */
export function checkPreconditions({ method, headers }: Input, takesIfMatch: boolean): void {
  if (!isWrite(method)) return;
  if (headers["if-none-match"] !== undefined) throw problem("PRECONDITION_FAILED", "If-None-Match is for GET and HEAD only");
  if (!takesIfMatch && entityTags(headers["if-match"]) !== undefined) throw problem("PRECONDITION_FAILED", "this resource has no ETag");
}

/** Whether the client already has the representation with this ETag, by weak comparison (RFC 9110, 13.1.2). */
export function isNotModified(input: Pick<Input, "headers">, etag: string): boolean {
  const header = input.headers["if-none-match"];
  if (header === undefined) return false;
  return entityTags(header)?.some(({ tag }) => `"${tag}"` === etag) ?? true;
}
