import { Type, type Static } from "@sinclair/typebox";
import {
  action,
  Cents,
  closed,
  Cursor,
  described,
  event,
  FailedItem,
  health,
  Id,
  Limit,
  MAX_BATCH,
  MAX_LINES,
  Money,
  named,
  nullable,
  Page,
  RowId,
  Shortage,
  Text,
  Timestamp,
} from "./contract";

/** Maximum units of one product, available and reserved together, that an adjustment may lead to. */
export const MAX_QUANTITY = 1_000_000_000;
const Name = Text({ minLength: 1, maxLength: 200 });
const MAX_PRICE = 9_999_999.99;
const Price = Money(MAX_PRICE);
const Quantity = Type.Integer({ minimum: 0, maximum: MAX_QUANTITY, description: "Units available for sale." });
const SKU = "The seller's own number for it (stock keeping unit).";
const details = {
  description: Type.Optional(nullable(Text({ maxLength: 5_000 }))),
  category: Type.Optional(nullable(Text({ minLength: 1, maxLength: 100 }))),
  sku: Type.Optional(described(nullable(Text({ minLength: 1, maxLength: 64 })), SKU)),
};
const ProductId = described(Id, "The product's id.");

/** `version` grows with every change, `edits` only with changes to anything but the stock; the ETag is `"<edits>-<version>"`. */
export const Product = named("Product", "A product on sale.", {
  id: Id,
  name: Type.String({ maxLength: 200 }),
  price: Price,
  quantity: Quantity,
  description: nullable(Type.String({ maxLength: 5_000 })),
  category: nullable(Type.String({ maxLength: 100 })),
  sku: described(nullable(Type.String({ maxLength: 64 })), SKU),
  seller_id: described(Id, "The user who sells it."),
  created_at: Timestamp,
  updated_at: Timestamp,
  version: Type.Integer({ minimum: 1 }),
  edits: Type.Integer({ minimum: 1 }),
});
export type Product = Static<typeof Product>;

const Movement = named("Movement", "A change of a product's stock: an entry of its ledger.", {
  id: RowId,
  delta: Type.Integer({ description: "Units added; negative if they were removed." }),
  balance: described(Quantity, "Units available afterwards."),
  reason: Type.String({ maxLength: 200 }),
  order_id: described(nullable(Id), "The order that reserved or released the units; null for other changes."),
  created_at: Timestamp,
});

export const SORTS = ["name", "-name", "price", "-price", "created_at", "-created_at"] as const;
const SORTING = "With a leading `-` descending. By default `created_at`, the oldest first.";

/** Puts a product on sale; the caller becomes its seller. Takes effect once per Idempotency-Key, as does `adjust`. */
export const create = action("products.create", {
  params: named("New product", "A product to be put on sale.", { name: Name, price: Price, quantity: Quantity, ...details }),
  result: Product,
});

export const get = action("products.get", { params: closed({ id: ProductId }), result: Product, idempotent: true });

/** Like `get`, but for several products that a gateway batches, in the order of the request; null for an unknown or archived product. */
export const getMany = action("products.getMany", {
  params: closed({ ids: Type.Array(Id, { minItems: 1, maxItems: MAX_BATCH }) }),
  result: Type.Array(nullable(Product), { maxItems: MAX_BATCH }),
  idempotent: true,
});

const List = closed({
  q: Type.Optional(
    Text({
      minLength: 1,
      maxLength: 64,
      description: "Text in the first 300 characters of name and description. The case of A to Z does not matter.",
    }),
  ),
  category: Type.Optional(Text({ minLength: 1, maxLength: 100, description: "Only products of this category." })),
  seller_id: Type.Optional(described(Id, "Only products of this seller.")),
  min_price: Type.Optional(Money(MAX_PRICE, "Only products of at least this price, in the major unit of the currency.")),
  max_price: Type.Optional(Money(MAX_PRICE, "Only products of at most this price, in the major unit of the currency.")),
  in_stock: Type.Optional(Type.Boolean({ description: "`true`: only products in stock; `false`: only those that are sold out." })),
  sort: Type.Optional(
    Type.Union(
      SORTS.map((sort) => Type.Literal(sort)),
      { description: SORTING },
    ),
  ),
  limit: Type.Optional(Limit),
  cursor: Type.Optional(Cursor),
});

/** One page of the catalogue. */
export const list = action("products.list", { params: List, result: Page(Product), idempotent: true });

/** A response with this many pages of PAGE_BYTES is not too large for a message. */
const LISTS_PER_CALL = 8;

/** Several pages at once, in the order of the request; each succeeds or fails individually. */
export const listMany = action("products.listMany", {
  params: closed({ lists: Type.Array(List, { minItems: 1, maxItems: LISTS_PER_CALL }) }),
  result: Type.Array(Type.Union([Page(Product), FailedItem]), { maxItems: LISTS_PER_CALL }),
  idempotent: true,
});

const Tag = closed({ edits: Type.Integer(), version: Type.Integer() });
export type Tag = Static<typeof Tag>;
const Tags = Type.Optional(Type.Array(Tag, { maxItems: 100 }));

/**
 * If `tags` are given, which are ETags, the product must not have been edited since one of them, else PRECONDITION_FAILED (RFC 9110, 13.1.1).
 * Changes of its stock, such as sales, don't matter.
 */
export const update = action("products.update", {
  params: named("Product changes", "Fields that are left out stay as they are. Null clears a description, category or sku.", {
    id: ProductId,
    tags: Tags,
    name: Type.Optional(Name),
    price: Type.Optional(Price),
    ...details,
  }),
  result: Product,
});

/** Removes a product from reads and new orders; it is kept for existing orders. `tags` are those of `update`. */
export const archive = action("products.archive", { params: closed({ id: ProductId, tags: Tags }), result: closed({}) });

/**
 * Adds `delta` units, or removes them if negative; INSUFFICIENT_STOCK if the quantity would be below zero. If `tags` are given, the product
 * must have one of these ETags.
 */
export const adjust = action("products.adjust", {
  params: named("Stock adjustment", "A change of a product's stock.", {
    id: ProductId,
    tags: Tags,
    delta: Type.Integer({
      minimum: -MAX_QUANTITY,
      maximum: MAX_QUANTITY,
      not: { const: 0 },
      description: "Units to add; negative to remove them.",
    }),
    reason: Type.Optional(Text({ minLength: 1, maxLength: 200 })),
  }),
  result: Product,
});

/** The stock movements of a product, newest first. */
export const ledger = action("products.ledger", {
  params: closed({ id: ProductId, limit: Type.Optional(Limit), cursor: Type.Optional(Cursor) }),
  result: Page(Movement),
  idempotent: true,
});

/** A response with this many names is not too large for a message. */
export const QUOTES_PER_CALL = 2_000;

/** Name, price and stock of requested products, for the orders service; unknown and archived products are left out. */
export const quote = action("products.quote", {
  params: closed({ ids: Type.Array(Id, { minItems: 1, maxItems: QUOTES_PER_CALL }) }),
  result: Type.Array(closed({ id: Id, name: Type.String({ maxLength: 200 }), price_cents: Cents, quantity: Quantity }), {
    maxItems: QUOTES_PER_CALL,
  }),
  idempotent: true,
  timeoutMs: 900, // even with one retry, shorter than the timeout of `orders.create`
});
export type Quote = Static<typeof quote.result>[number];

/** Shows whether a reply is about an order's own lines: see `digestOf`. */
const LinesDigest = Type.String({ minLength: 43, maxLength: 43 });
const decided = { order_id: Id, lines_digest: LinesDigest };

/** The outcome of reserving or releasing an order's stock. It is stored with the reservation, and a republished event gets the same reply. */
export const Outcome = Type.Union([
  closed({ ...decided, outcome: Type.Literal("RESERVED") }),
  closed({
    ...decided,
    outcome: Type.Literal("REJECTED"),
    shortages: Type.Array(Shortage, { maxItems: MAX_LINES }),
  }),
  closed({ ...decided, outcome: Type.Literal("RELEASED") }),
]);
export type Outcome = Static<typeof Outcome>;

/** The reply to `order.created` and `order.cancelled`, and the only thing that settles them. */
export const stockSettled = event("stock.settled", closed({ orders: Type.Array(Outcome, { minItems: 1, maxItems: MAX_BATCH }) }));

const Refusal = closed({
  order_id: Id,
  event: Type.String(),
  /** A retry can't help: the event breaks its contract. */
  permanent: Type.Boolean(),
  message: Type.String(),
});
export type Refusal = Static<typeof Refusal>;

/** Orders that could not be processed, and why. Ten refusals, or a permanent one, park the outbox row. */
export const stockRefused = event("stock.refused", closed({ orders: Type.Array(Refusal, { minItems: 1, maxItems: MAX_BATCH }) }));

const Reservation = closed({
  order_id: Id,
  state: Type.Union([Type.Literal("RESERVED"), Type.Literal("REJECTED"), Type.Literal("RELEASED")]),
  lines: Type.Array(closed({ product_id: Id, quantity: Type.Integer() }), { maxItems: MAX_LINES }),
});
export type Reservation = Static<typeof Reservation>;

/** Maximum number of lines of the reservations in one response, exceeded by at most one reservation. */
export const RESERVED_LINES_PER_CALL = 20_000;

/**
 * The reservations of the orders after one id, up to and including another, for the audit. If there are more than fit into a
 * response, `next` is the `after` of the next call.
 */
export const reservations = action("products.reservations", {
  params: closed({ after: Id, upto: Id }),
  result: closed({ items: Type.Array(Reservation, { maxItems: 10_000 }), next: nullable(Id) }),
  idempotent: true,
  timeoutMs: 10_000,
});

/**
 * Releases the stock that is reserved for an order, for a repair. If nothing is reserved it leaves a tombstone, so that a late
 * `order.created` reserves nothing. It sends no event: the order no longer exists, or is decided.
 */
export const release = action("products.release", { params: closed({ order_id: Id }), result: closed({}), idempotent: true });

export const AuditCheck = named("Consistency check", "Whether the databases keep one invariant.", {
  name: Type.String({ description: "The invariant." }),
  ok: Type.Boolean(),
  violations: Type.Integer({ minimum: 0 }),
  sample: Type.Array(Type.String(), { description: "The first violations." }),
});
export type AuditCheck = Static<typeof AuditCheck>;

/** Checks the invariants that product_db can check on its own, in one snapshot. */
export const productsAudit = action("products.audit", {
  params: closed({}),
  result: Type.Array(AuditCheck),
  idempotent: true,
  timeoutMs: 60_000,
});

export const productsHealth = health("products");
