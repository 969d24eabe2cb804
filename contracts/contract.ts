import { KindGuard, Type, type Static, type TProperties, type TSchema } from "@sinclair/typebox";

/** The params and the result of one action: the source of types, validation, typed calls and the REST documentation. */
export interface ActionContract<P extends TSchema = TSchema, R extends TSchema = TSchema> {
  /** Full name, `service.action`. */
  readonly name: string;
  readonly params: P;
  readonly result: R;
  /** A caller may retry it after a transport failure. */
  readonly idempotent: boolean;
  /** A call made inside another never outlives that one. */
  readonly timeoutMs: number;
}

/** The payload of one event. */
export interface EventContract<P extends TSchema = TSchema> {
  readonly name: string;
  readonly params: P;
}

export type Params<C extends { readonly params: TSchema }> = Static<C["params"]>;
export type Result<C extends ActionContract> = Static<C["result"]>;

/** Maximum number of items in one call or event. */
export const MAX_BATCH = 128;

/** Maximum number of lines in an order. */
export const MAX_LINES = 100;

/** Maximum size of a page as JSON. */
export const PAGE_BYTES = 256 * 1024;
/**
 * Maximum size of the response to a batched call, as JSON. RabbitMQ closes the connection of a node that sends too large a message: no
 * action's response may come near MAX_PACKET_BYTES of the transporter.
 */
export const RESPONSE_BYTES = 2 * 1024 * 1024;

/** Default timeout of a call: even with one retry the client gets its response within 5 s. */
const CALL_TIMEOUT_MS = 2_000;

export function action<Name extends string, P extends TSchema, R extends TSchema>(
  name: Name,
  contract: { params: P; result: R; idempotent?: boolean; timeoutMs?: number },
): ActionContract<P, R> & { readonly name: Name } {
  return { idempotent: false, timeoutMs: CALL_TIMEOUT_MS, ...contract, name };
}

export function event<Name extends string, P extends TSchema>(name: Name, params: P): EventContract<P> & { readonly name: Name } {
  return { name, params };
}

/**
 * An event that its sender's outbox publishes until its consumer has replied (mixins/outbox.mixin.ts, mixins/replier.mixin.ts). Its payload is
 * a list of items.
 */
export interface OutboxedEvent<Name extends string = string, I extends TSchema = TSchema> extends EventContract {
  readonly name: Name;
  /** The service whose replies settle it. Other listeners make no difference. */
  readonly repliedBy: string;
  /** The field of the payload that holds the items. */
  readonly list: string;
  /** The field of an item that identifies what it is about, such as an order. */
  readonly subject: string;
  /** One item. The consumer validates each individually, so that an invalid one can't hold up the others. */
  readonly item: I;
}

export function outboxedEvent<Name extends string, I extends TSchema>(
  name: Name,
  contract: Pick<OutboxedEvent<Name, I>, "repliedBy" | "list" | "subject" | "item">,
): OutboxedEvent<Name, I> {
  const item = Type.Object({ [contract.subject]: Id });
  return { ...contract, name, params: closed({ [contract.list]: Type.Array(item, { minItems: 1, maxItems: MAX_BATCH }) }) };
}

/** An object schema that refuses unknown fields, so that a misspelt field name never goes unnoticed. */
export const closed = <T extends TProperties>(properties: T) => Type.Object(properties, { additionalProperties: false });

/** Like `closed`, but for an object that clients see. In the OpenAPI document it is a schema of its own: "Order line" is OrderLine. */
export const named = <T extends TProperties>(title: string, description: string, properties: T) =>
  Type.Object(properties, { title, description, additionalProperties: false });

/** A copy of a schema without a title, with a description of the field or parameter that it is used for, for the OpenAPI document. */
export const described = <T extends TSchema>(schema: T, description: string): T => ({ ...schema, description });

export const nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()]);

const digits = (count: number): string => "[0-9a-f]".repeat(count); // five times as fast as `{count}`
/** The text of a UUID of any version (RFC 9562, section 4), in upper or lower case. */
export const UUID = new RegExp(`^${[8, 4, 4, 4, 12].map(digits).join("-")}$`, "i");
/** The number of characters of an id. */
export const ID_LENGTH = 36;
/** Sorted before and after all other ids (RFC 9562, 5.9 and 5.10); the nil UUID also stands for an unknown user. */
export const NIL_ID = "00000000-0000-0000-0000-000000000000";
export const MAX_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff";

/** An id in the internal form, which is lower case; undefined if the text is not an id. */
export const parseId = (text: string): string | undefined => (UUID.test(text) ? text.toLowerCase() : undefined);

/** Compares by code unit, which is also PostgreSQL's order of UUIDs. */
export const compareIds = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/**
 * An id of a user, product or order: UUIDv7, generated by the database, so that ids never repeat, whatever backup is restored. After
 * validation it is in lower case (`lowercase` is a keyword of our validator) and can be compared as a string.
 */
export const Id = Type.String({ format: "uuid", lowercase: true });

/** If given, the current version must be one of these; otherwise the change is refused with PRECONDITION_FAILED (RFC 9110, 13.1.1). */
export const Versions = Type.Optional(Type.Array(Type.Integer(), { maxItems: 100 }));

/** An id of a row of the outbox, the ledger or the audit log: an identity column; below 2^53 it is exact in JavaScript and JSON. */
export const RowId = Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER });

/**
 * Text without control characters other than tab and line feed. Routes normalize it (routing/text.ts), so that one with a minimum length can't
 * be blank.
 */
export const Text = (options: { minLength?: number; maxLength: number; description?: string }) =>
  Type.String({ format: "text", ...(options.minLength !== undefined && { pattern: "\\S" }), ...options });

/** RFC 3339, UTC, milliseconds. */
export const Timestamp = Type.String({ format: "date-time" });

const IN_CURRENCY = "In the major unit of the shop's currency, such as euros, with at most two decimals: more are refused, never rounded.";

/** An amount for clients: a JSON number with at most two decimals. */
export const Money = (maximum: number, description = IN_CURRENCY) => Type.Number({ minimum: 0, maximum, format: "money", description });

/** An internal amount: an integer number of cents. */
export const Cents = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });

export const Limit = Type.Integer({ minimum: 1, maximum: 100, default: 20, description: "Maximum number of items in the page." });
/** Long enough for a name of 200 characters with JSON escapes. */
export const MAX_CURSOR_LENGTH = 4_096;
export const Cursor = Type.String({
  minLength: 1,
  maxLength: MAX_CURSOR_LENGTH,
  description: "Opaque: the `next_cursor` of the previous page.",
});

/** One page of a list of items that have a title. */
export const Page = <T extends TSchema>(item: T) =>
  named(`${item.title ?? ""} page`, "One page of a list.", {
    items: Type.Array(item),
    next_cursor: described(nullable(Cursor), "The `cursor` of the next page; null on the last page."),
  });

export const Shortage = named("Shortage", "A line of an order that can't be fulfilled.", {
  product_id: Id,
  wanted: Type.Integer({ description: "Units in the order." }),
  available: described(nullable(Type.Integer()), "Units left; null if the product is no longer sold."),
});
export type Shortage = Static<typeof Shortage>;

/** The error of one item of a batched call: the one that it would have got in a call of its own. */
export const FailedItem = closed({
  error: closed({
    code: Type.String(),
    detail: Type.String({ maxLength: 10_000 }),
    shortages: Type.Optional(Type.Array(Shortage, { maxItems: MAX_LINES })),
  }),
});
export type FailedItem = Static<typeof FailedItem>;

/** Whether a service and its database are available. Every service with a database has this action. */
export const health = (service: string) =>
  action(`${service}.health`, {
    params: closed({}),
    result: closed({ database: Type.Boolean() }),
    idempotent: true,
    timeoutMs: 2_500,
  });

/** The fields of an object schema; none of any other schema. */
export const fieldsOf = (schema: TSchema): TProperties => (KindGuard.IsObject(schema) ? schema.properties : {});
