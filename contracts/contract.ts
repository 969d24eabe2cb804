import { Type, type Static, type TProperties, type TSchema } from "@sinclair/typebox";

/** What one action takes and gives. Types, validation, typed calls and the REST documentation come from here. */
export interface ActionContract<P extends TSchema = TSchema, R extends TSchema = TSchema> {
  /** Full name, `service.action`. */
  readonly name: string;
  readonly params: P;
  readonly result: R;
  /** Doing it twice is the same as doing it once, so a caller may repeat it after a failure of the transport. */
  readonly repeatable: boolean;
  /** Milliseconds a caller waits for it; a call made inside another never outlives that one. */
  readonly timeout: number;
}

/** What one event says. */
export interface EventContract<P extends TSchema = TSchema> {
  readonly name: string;
  readonly params: P;
}

export type Params<C extends { readonly params: TSchema }> = Static<C["params"]>;
export type Result<C extends ActionContract> = Static<C["result"]>;

/** Most items that travel in one call or event. */
export const MAX_BATCH = 128;

/** Most lines of an order. */
export const MAX_LINES = 100;

/**
 * Bytes of JSON that a page has at most, and one of the larger responses to a batch. RabbitMQ closes the connection of
 * a node that sends too large a message: no action's response may come near MAX_PACKET_BYTES of the transporter.
 */
export const PAGE_BYTES = 256 * 1024;
export const RESPONSE_BYTES = 2 * 1024 * 1024;

/** Default time-out of a call, in ms: with one repeat the client still has its answer within 5 s. */
export const CALL_TIMEOUT = 2_000;

export function action<Name extends string, P extends TSchema, R extends TSchema>(
  name: Name,
  contract: { params: P; result: R; repeatable?: boolean; timeout?: number },
): ActionContract<P, R> & { readonly name: Name } {
  return { repeatable: false, timeout: CALL_TIMEOUT, ...contract, name };
}

export function event<Name extends string, P extends TSchema>(name: Name, params: P): EventContract<P> & { readonly name: Name } {
  return { name, params };
}

/** An object that knows all its fields: an unknown one is refused, so that a typing error never passes in silence. */
export const closed = <T extends TProperties>(properties: T) => Type.Object(properties, { additionalProperties: false });

export const nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()]);

const digits = (count: number): string => "[0-9a-f]".repeat(count); // five times as fast as `{count}`
/** The text of a UUID of any version (RFC 9562, section 4), in upper or lower case. */
export const UUID = new RegExp(`^${[8, 4, 4, 4, 12].map(digits).join("-")}$`, "i");
/** Characters of an id. */
export const ID_LENGTH = 36;
/** Before and behind all others (RFC 9562, 5.9 and 5.10); the nil UUID is also nobody in particular. */
export const NIL_ID = "00000000-0000-0000-0000-000000000000";
export const MAX_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff";

/** An id as it is written inside, in lower case; undefined where a text is none. */
export const parseId = (text: string): string | undefined => (UUID.test(text) ? text.toLowerCase() : undefined);

/** By code unit, which is PostgreSQL's order of UUIDs too. */
export const compareIds = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/**
 * Of users, products and orders: UUIDv7, made by the database, so that they never repeat, whatever backup is restored. What has passed a contract is
 * in lower case (`lowercase` is a keyword of our validator) and can be compared as a string.
 */
export const Id = Type.String({ format: "uuid", lowercase: true });

/** If given, the current version must be one of these; otherwise the change is refused with PRECONDITION_FAILED (RFC 9110, 13.1.1). */
export const Versions = Type.Optional(Type.Array(Type.Integer(), { maxItems: 100 }));

/** Of rows of the outbox, the ledger and the audit log: identity columns; below 2^53 they are exact in JavaScript and JSON. */
export const RowId = Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER });

/** Text without control characters other than tab and line feed. A route takes CRLF as a line feed. */
export const Text = (options: { minLength?: number; maxLength: number; pattern?: string; description?: string }) =>
  Type.String({ format: "text", ...options });

/** RFC 3339, UTC, milliseconds. */
export const Timestamp = Type.String({ format: "date-time" });

/** An amount as clients see it: a JSON number with at most two decimals. A third is refused, never rounded. */
export const Money = (maximum: number) => Type.Number({ minimum: 0, maximum, format: "money" });

/** An amount inside: an integer number of cents. */
export const Cents = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });

export const Limit = Type.Integer({ minimum: 1, maximum: 100, default: 20 });
/** Opaque; long enough for a name of 200 characters that JSON escapes. */
export const MAX_CURSOR = 4_096;
export const Cursor = Type.String({ minLength: 1, maxLength: MAX_CURSOR, description: "Opaque: the `next_cursor` of the page before." });

/** One page of a list; `next_cursor` is null on the last one. */
export const Page = <T extends TSchema>(item: T) => closed({ items: Type.Array(item), next_cursor: nullable(Cursor) });

/** What became of one item of many: the error that it would have met alone. */
export const FailedItem = closed({ error: closed({ code: Type.String(), detail: Type.String({ maxLength: 10_000 }) }) });
export type FailedItem = Static<typeof FailedItem>;

/** Whether a service and its database can answer now. Every service with a database has this action. */
export const health = (service: string) =>
  action(`${service}.health`, {
    params: closed({}),
    result: closed({ database: Type.Boolean() }),
    repeatable: true,
    timeout: 2_500,
  });
