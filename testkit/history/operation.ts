import { Type, type Static, type TProperties } from "@sinclair/typebox";
import { closed } from "../../contracts/contract";
import { Status } from "../../contracts/orders";

/*
 * One call to the public API as its client saw it. Each attempt is a separate operation: a request that is retried with the same key is recorded
 * every time it is sent. A history is a file of operations, one JSON object per line, in any order.
 *
 * The checks rely on a complete history: every call that changes one of its products or orders is recorded, whatever its outcome.
 */

/** Id of a product or an order; compared as text. */
const Id = Type.String({ minLength: 1 });
const Line = closed({ product_id: Id, quantity: Type.Integer({ minimum: 1 }) });
/** Milliseconds of the recording process's monotonic clock (`performance.now()`), with fractions. */
const Moment = Type.Number({ minimum: 0 });

/**
 * - `ok`: a success whose response the client has read completely.
 * - `failed`: a definite refusal (4xx) that changed nothing, including 429, 401, and 409 IDEMPOTENCY_IN_FLIGHT of this attempt.
 * - `unknown`: no response, an incomplete one, a 5xx, or a balancer's. A write may have happened at any time from `begin` on, or may still happen.
 */
export const Outcome = Type.Union([Type.Literal("ok"), Type.Literal("failed"), Type.Literal("unknown")]);
export type Outcome = Static<typeof Outcome>;

const call = {
  /** Before the request is sent. */
  begin: Moment,
  /** After the response has been read; absent if the outcome is unknown. */
  end: Type.Optional(Moment),
  outcome: Outcome,
  /** The token's user: any stable name, preferably the user's id; "" without a token. */
  user: Type.String(),
  /** Set for an admin, who may see and change other users' data. */
  admin: Type.Optional(Type.Boolean()),
  /** The gateway that served it, if known; only for messages. */
  gateway: Type.Optional(Type.String()),
  /** HTTP status of a definite response. */
  status: Type.Optional(Type.Integer()),
  /** `code` of a refusal. */
  code: Type.Optional(Type.String()),
};

const operation = <K extends string, P extends TProperties>(kind: K, properties: P) =>
  closed({ kind: Type.Literal(kind), ...call, ...properties });

const Version = Type.Integer({ minimum: 1 });

/** A product as a response shows it. `edits` and `version` are its ETag, which items of lists lack. Prices as in the JSON. */
export const ProductSeen = closed({ id: Id, version: Version, edits: Version, quantity: Type.Integer(), price: Type.Number() });
export type ProductSeen = Static<typeof ProductSeen>;

/** An order as a response shows it. */
export const OrderSeen = closed({
  id: Id,
  /** Its ETag, which items of lists lack. */
  version: Type.Optional(Version),
  status: Status,
  total: Type.Optional(Type.Number()),
  /** `created_at`, ms since 1970. */
  created: Type.Optional(Type.Number()),
  /** The statuses of `history`, oldest first. */
  history: Type.Optional(Type.Array(Status)),
  /** PENDING with a `reason`: its outbox row is parked, so it need not be decided. */
  parked: Type.Optional(Type.Boolean()),
});
export type OrderSeen = Static<typeof OrderSeen>;

/** `POST /products`. Here and below, `seen` is present exactly if the outcome is ok. */
export const CreateProduct = operation("product.create", {
  quantity: Type.Integer(),
  price: Type.Number(),
  seen: Type.Optional(ProductSeen),
});
/** `GET /products/{id}`. A 304 is not recorded. */
export const ReadProduct = operation("product.read", { product: Id, seen: Type.Optional(ProductSeen) });
/** `PATCH /products/{id}` of its price. `if_match` are the edits in If-Match, if it was exactly one ETag. */
export const PatchProduct = operation("product.patch", {
  product: Id,
  price: Type.Number(),
  if_match: Type.Optional(Version),
  seen: Type.Optional(ProductSeen),
});
/** `POST /products/{id}/stock`. */
export const AdjustStock = operation("product.adjust", { product: Id, delta: Type.Integer(), seen: Type.Optional(ProductSeen) });

/** `POST /orders`. `digest` is the response's body or a hash of it: replays must be identical. */
export const PlaceOrder = operation("order.place", {
  key: Type.Optional(Type.String()),
  /** The lines as sent. */
  lines: Type.Array(Line),
  seen: Type.Optional(OrderSeen),
  digest: Type.Optional(Type.String()),
  /** `Idempotent-Replayed: true`. */
  replayed: Type.Optional(Type.Boolean()),
});
/** `GET /orders/{id}` of any user's order. */
export const ReadOrder = operation("order.read", { order: Id, seen: Type.Optional(OrderSeen) });
/** `POST /orders/{id}/cancel`. */
export const CancelOrder = operation("order.cancel", { order: Id, seen: Type.Optional(OrderSeen) });

/** One page of a walk through a list; the next one begins after this one ends. */
const page = <P extends TProperties>(item: P) => closed({ begin: Moment, end: Moment, items: Type.Array(closed(item)) });

/**
 * A walk: `GET /orders` of one's own orders, without `all` or `user_id`, page by page from the first. It ends before a page that failed, and is then
 * not `complete`. Ok if it has at least one page.
 */
export const ListOrders = operation("order.list", {
  /** The requested `status`. */
  filter: Type.Optional(Status),
  pages: Type.Array(page({ id: Id, status: Status, created: Type.Number() })),
  /** The last page had no `next_cursor`. */
  complete: Type.Boolean(),
});
/** A walk through `GET /products`, with no filter except the seller; otherwise like that of orders. */
export const ListProducts = operation("product.list", {
  seller: Type.Optional(Type.String()),
  sort: Type.Optional(Type.Union([Type.Literal("created_at"), Type.Literal("-created_at"), Type.Literal("price"), Type.Literal("-price")])),
  pages: Type.Array(page({ id: Id, quantity: Type.Integer(), price: Type.Number(), created: Type.Number() })),
  complete: Type.Boolean(),
});

/**
 * One connection to `GET /orders/{id}/events`, from its request to its end. Ok if the response was 200, however it ended; a 204 counts as
 * failed. Only complete events are recorded.
 */
export const StreamOrder = operation("order.stream", {
  order: Id,
  /** `Last-Event-ID`. */
  last_event_id: Type.Optional(Type.Integer({ minimum: 0 })),
  events: Type.Array(closed({ at: Moment, id: Type.Integer(), status: Status })),
  /** `server`: the body ended properly. `client`: the client disconnected. `cut`: anything else. */
  closed: Type.Optional(Type.Union([Type.Literal("server"), Type.Literal("client"), Type.Literal("cut")])),
});

/**
 * A quiet period, which is no call: from `begin` to `end` there was no fault, and no outbox row was pending, except for calls that began in it.
 * Reads of products and orders in the period let the checks balance the stock: read every product, and every order that is not known to be final.
 * No earlier write may be in flight, except for those of unknown outcome.
 */
export const Quiet = closed({ kind: Type.Literal("quiet"), begin: Moment, end: Moment });

/** The schemas by kind, for reading a file. */
export const SCHEMAS = {
  "product.create": CreateProduct,
  "product.read": ReadProduct,
  "product.patch": PatchProduct,
  "product.adjust": AdjustStock,
  "product.list": ListProducts,
  "order.place": PlaceOrder,
  "order.read": ReadOrder,
  "order.cancel": CancelOrder,
  "order.list": ListOrders,
  "order.stream": StreamOrder,
  quiet: Quiet,
} as const;

export type Kind = keyof typeof SCHEMAS;
/** One line of a history, discriminated by `kind`. */
export type Operation = { [K in Kind]: Static<(typeof SCHEMAS)[K]> }[Kind];
/** The operations of one kind, or of several. */
export type Of<K extends Kind> = Extract<Operation, { kind: K }>;

/** A violated rule: a message, and the operations that show it, the decisive one last. */
export interface Violation {
  /** The check that found it, such as "products". */
  check: string;
  message: string;
  operations: readonly Operation[];
}
