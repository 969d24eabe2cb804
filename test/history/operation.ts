import { Type, type Static, type TProperties } from "@sinclair/typebox";
import { closed } from "../../contracts/contract";
import { Status } from "../../contracts/orders";

/*
 * One call to the public API as its client saw it. Each attempt is an operation of its own: a request that is repeated under one key is recorded
 * as often as it is sent. A history is a file of these, one JSON object a line, in any order.
 *
 * The checks rely on the history being whole: every call that changes a product or an order of it is recorded, whatever its outcome.
 */

/** Of a product or an order; one text for one thing, and compared as such. */
const Id = Type.String({ minLength: 1 });
const Line = closed({ product_id: Id, quantity: Type.Integer({ minimum: 1 }) });
/** Milliseconds of the recording process's monotonic clock (`performance.now()`), with fractions. */
const Moment = Type.Number({ minimum: 0 });

/**
 * - `ok`: a success that the client has read to its end.
 * - `failed`: a definite refusal (4xx) that changed nothing. 429 and 401 count; so does 409 IDEMPOTENCY_IN_FLIGHT, of this attempt.
 * - `unknown`: no response, a part of one, a 5xx, or one of a balancer. A write may have happened, at any time from `begin` on, or may still.
 */
export const Outcome = Type.Union([Type.Literal("ok"), Type.Literal("failed"), Type.Literal("unknown")]);
export type Outcome = Static<typeof Outcome>;

const call = {
  /** Before the request is sent. */
  begin: Moment,
  /** After the response has been read; left out where the outcome is unknown. */
  end: Type.Optional(Moment),
  outcome: Outcome,
  /** Whose token it carried: any name that stays the same, best the user's id; "" without a token. */
  user: Type.String(),
  /** Set for an admin, who may see and change what is another's. */
  admin: Type.Optional(Type.Boolean()),
  /** Which gateway served it, where that is known; for messages alone. */
  gateway: Type.Optional(Type.String()),
  /** HTTP status of a definite response. */
  status: Type.Optional(Type.Integer()),
  /** `code` of a refusal. */
  code: Type.Optional(Type.String()),
};

const operation = <K extends string, P extends TProperties>(kind: K, properties: P) =>
  closed({ kind: Type.Literal(kind), ...call, ...properties });

const Version = Type.Integer({ minimum: 1 });

/** What a response says of one product. `version` is its ETag; the items of lists have none. Prices as on the wire. */
export const ProductSeen = closed({ id: Id, version: Version, quantity: Type.Integer(), price: Type.Number() });
export type ProductSeen = Static<typeof ProductSeen>;

/** What a response says of one order. */
export const OrderSeen = closed({
  id: Id,
  /** Its ETag; the items of lists have none. */
  version: Type.Optional(Version),
  status: Status,
  total: Type.Optional(Type.Number()),
  /** `created_at`, ms since 1970. */
  created: Type.Optional(Type.Number()),
  /** The statuses of `history`, the oldest first. */
  history: Type.Optional(Type.Array(Status)),
  /** PENDING, with a `reason`: its outbox row is parked, so it need not be decided. */
  parked: Type.Optional(Type.Boolean()),
});
export type OrderSeen = Static<typeof OrderSeen>;

/** `POST /products`. `seen` is there exactly where the outcome is ok; so in all that follow. */
export const CreateProduct = operation("product.create", {
  quantity: Type.Integer(),
  price: Type.Number(),
  seen: Type.Optional(ProductSeen),
});
/** `GET /products/{id}`. A 304 is not recorded. */
export const ReadProduct = operation("product.read", { product: Id, seen: Type.Optional(ProductSeen) });
/** `PATCH /products/{id}` of its price. `if_match` is the one version that the request named, if any. */
export const PatchProduct = operation("product.patch", {
  product: Id,
  price: Type.Number(),
  if_match: Type.Optional(Version),
  seen: Type.Optional(ProductSeen),
});
/** `POST /products/{id}/stock`. */
export const AdjustStock = operation("product.adjust", { product: Id, delta: Type.Integer(), seen: Type.Optional(ProductSeen) });

/** `POST /orders`. `digest` is the response's body, or any hash of it: repeats must be the same to the letter. */
export const PlaceOrder = operation("order.place", {
  key: Type.Optional(Type.String()),
  /** As sent. */
  lines: Type.Array(Line),
  seen: Type.Optional(OrderSeen),
  digest: Type.Optional(Type.String()),
  /** `Idempotent-Replayed: true`. */
  replayed: Type.Optional(Type.Boolean()),
});
/** `GET /orders/{id}`, of whoever's order. */
export const ReadOrder = operation("order.read", { order: Id, seen: Type.Optional(OrderSeen) });
/** `POST /orders/{id}/cancel`. */
export const CancelOrder = operation("order.cancel", { order: Id, seen: Type.Optional(OrderSeen) });

/** One page of a walk through a list; the next one begins after this has ended. */
const page = <P extends TProperties>(item: P) => closed({ begin: Moment, end: Moment, items: Type.Array(closed(item)) });

/**
 * A walk through `GET /orders`, one's own without `all` or `user_id`, from its first page on. Pages that could not be had are left out:
 * the walk ends before them, and is not `complete`. Ok where there is one page at least.
 */
export const ListOrders = operation("order.list", {
  /** The `status` asked for. */
  filter: Type.Optional(Status),
  pages: Type.Array(page({ id: Id, status: Status, created: Type.Number() })),
  /** The last page had no `next_cursor`. */
  complete: Type.Boolean(),
});
/** A walk through `GET /products`, with no filter but the seller; as for orders. */
export const ListProducts = operation("product.list", {
  seller: Type.Optional(Type.String()),
  sort: Type.Optional(Type.Union([Type.Literal("created_at"), Type.Literal("-created_at"), Type.Literal("price"), Type.Literal("-price")])),
  pages: Type.Array(page({ id: Id, quantity: Type.Integer(), price: Type.Number(), created: Type.Number() })),
  complete: Type.Boolean(),
});

/**
 * One connection to `GET /orders/{id}/events`, from its request to its end. Ok where the response was 200, however it ended; a 204 is
 * failed. Only whole events are recorded.
 */
export const StreamOrder = operation("order.stream", {
  order: Id,
  /** `Last-Event-ID`. */
  last_event_id: Type.Optional(Type.Integer({ minimum: 0 })),
  events: Type.Array(closed({ at: Moment, id: Type.Integer(), status: Status })),
  /** `server`: its body ended properly. `client`: its client went. `cut`: anything else. */
  closed: Type.Optional(Type.Union([Type.Literal("server"), Type.Literal("client"), Type.Literal("cut")])),
});

/**
 * No call, but what the recording process knows: from `begin` to `end` no fault was on, and no outbox row was pending or would become so but by
 * calls that began in it. Reads of products and orders that lie in it let the checks balance the stock: read every product, and every order that
 * is not known to be final. No write of before may be in flight, but for those of unknown outcome.
 */
export const Quiet = closed({ kind: Type.Literal("quiet"), begin: Moment, end: Moment });

/** The schema of each kind, for whoever reads a file. */
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
/** One line of a history, told apart by `kind`. */
export type Operation = { [K in Kind]: Static<(typeof SCHEMAS)[K]> }[Kind];
/** The operations of one kind, or of several. */
export type Of<K extends Kind> = Extract<Operation, { kind: K }>;

/** A broken promise: a sentence for a person, and the operations that show it, the decisive one last. */
export interface Violation {
  /** The check that found it, such as "products". */
  check: string;
  message: string;
  operations: readonly Operation[];
}
