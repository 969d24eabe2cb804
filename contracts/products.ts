import { Type, type Static } from "@sinclair/typebox";
import {
  action,
  Cents,
  closed,
  Cursor,
  event,
  FailedItem,
  health,
  Id,
  Limit,
  MAX_BATCH,
  MAX_LINES,
  Money,
  nullable,
  Page,
  RowId,
  Text,
  Timestamp,
  Versions,
} from "./contract";

/** Most units of one product, on the shelf and reserved together, that an adjustment may lead to. */
export const MAX_QUANTITY = 1_000_000_000;
const Name = Text({ minLength: 1, maxLength: 200, pattern: "\\S" });
const Price = Money(9_999_999.99);
const Quantity = Type.Integer({ minimum: 0, maximum: MAX_QUANTITY });
const details = {
  description: Type.Optional(nullable(Text({ maxLength: 5_000 }))),
  category: Type.Optional(nullable(Text({ minLength: 1, maxLength: 100 }))),
  sku: Type.Optional(nullable(Text({ minLength: 1, maxLength: 64 }))),
};

/** `quantity` is what can be sold now; `version` grows with every change and is the ETag. */
export const Product = closed({
  id: Id,
  name: Type.String({ maxLength: 200 }),
  price: Price,
  quantity: Quantity,
  description: nullable(Type.String({ maxLength: 5_000 })),
  category: nullable(Type.String({ maxLength: 100 })),
  sku: nullable(Type.String({ maxLength: 64 })),
  seller_id: Id,
  created_at: Timestamp,
  updated_at: Timestamp,
  version: Type.Integer({ minimum: 1 }),
});
export type Product = Static<typeof Product>;

/** A line of the ledger: how a quantity changed, why, and what it was afterwards. */
export const Movement = closed({
  id: RowId,
  delta: Type.Integer(),
  balance: Quantity,
  reason: Type.String({ maxLength: 200 }),
  order_id: nullable(Id),
  created_at: Timestamp,
});

export const SORTS = ["name", "-name", "price", "-price", "created_at", "-created_at"] as const;

export const create = action("products.create", {
  params: closed({ name: Name, price: Price, quantity: Quantity, ...details }),
  result: Product,
});

export const get = action("products.get", { params: closed({ id: Id }), result: Product, repeatable: true });

/** Several at once, in the order asked; null for what is unknown or archived. What waits in a gateway at the same moment travels so. */
export const getMany = action("products.getMany", {
  params: closed({ ids: Type.Array(Id, { minItems: 1, maxItems: MAX_BATCH }) }),
  result: Type.Array(nullable(Product), { maxItems: MAX_BATCH }),
  repeatable: true,
});

const List = closed({
  q: Type.Optional(
    Text({
      minLength: 1,
      maxLength: 64,
      description: "Text in the first 300 characters of name and description.",
    }),
  ),
  category: Type.Optional(Text({ maxLength: 100 })),
  seller_id: Type.Optional(Id),
  min_price: Type.Optional(Price),
  max_price: Type.Optional(Price),
  in_stock: Type.Optional(Type.Boolean({ description: "`false`: what is sold out." })),
  sort: Type.Optional(Type.Union(SORTS.map((sort) => Type.Literal(sort)))),
  limit: Type.Optional(Limit),
  cursor: Type.Optional(Cursor),
});

/** One page of the catalogue. */
export const list = action("products.list", { params: List, result: Page(Product), repeatable: true });

/** So many pages of PAGE_BYTES make no message too large. */
export const LISTS_PER_CALL = 8;

/** Several pages at once, in the order asked; each succeeds or fails by itself. */
export const listMany = action("products.listMany", {
  params: closed({ lists: Type.Array(List, { minItems: 1, maxItems: LISTS_PER_CALL }) }),
  result: Type.Array(Type.Union([Page(Product), FailedItem]), { maxItems: LISTS_PER_CALL }),
  repeatable: true,
});

/** Where `versions` are given, the product's must be one of them, else PRECONDITION_FAILED (RFC 9110, 13.1.1). */
export const update = action("products.update", {
  params: closed({
    id: Id,
    versions: Versions,
    name: Type.Optional(Name),
    price: Type.Optional(Price),
    ...details,
  }),
  result: Product,
});

/** Gone from reads and new orders, kept for old ones. */
export const archive = action("products.archive", { params: closed({ id: Id, versions: Versions }), result: closed({}) });

/** Adds `delta` units, or takes them away; INSUFFICIENT_STOCK where that would be below zero. */
export const adjust = action("products.adjust", {
  params: closed({
    id: Id,
    versions: Versions,
    delta: Type.Union([Type.Integer({ minimum: 1, maximum: MAX_QUANTITY }), Type.Integer({ minimum: -MAX_QUANTITY, maximum: -1 })]),
    reason: Type.Optional(Text({ minLength: 1, maxLength: 200 })),
  }),
  result: Product,
});

/** The stock movements of a product, newest first. */
export const ledger = action("products.ledger", {
  params: closed({ id: Id, limit: Type.Optional(Limit), cursor: Type.Optional(Cursor) }),
  result: Page(Movement),
  repeatable: true,
});

/** So many names make no message too large. */
export const QUOTES_PER_CALL = 2_000;

/** Name, price and stock of the products that orders want, for the orders service; unknown and archived ones are left out. */
export const quote = action("products.quote", {
  params: closed({ ids: Type.Array(Id, { minItems: 1, maxItems: QUOTES_PER_CALL }) }),
  result: Type.Array(closed({ id: Id, name: Type.String({ maxLength: 200 }), price_cents: Cents, quantity: Quantity }), {
    maxItems: QUOTES_PER_CALL,
  }),
  repeatable: true,
  timeout: 900, // with one repeat within the time of the create that asks
});
export type Quote = Static<typeof quote.result>[number];

export const Shortage = closed({
  product_id: Id,
  wanted: Type.Integer(),
  /** Units left; null if the product is no longer sold. */
  available: nullable(Type.Integer()),
});
export type Shortage = Static<typeof Shortage>;

/** By it an order knows that a reply is about its own lines: see `digestOf`. */
const LinesDigest = Type.String({ minLength: 43, maxLength: 43 });

/** What became of an order's stock. It is stored with the reservation, and the same reply is given again when asked again. */
export const Outcome = Type.Union([
  closed({ order_id: Id, outcome: Type.Literal("RESERVED"), lines_digest: LinesDigest }),
  closed({
    order_id: Id,
    outcome: Type.Literal("REJECTED"),
    lines_digest: LinesDigest,
    shortages: Type.Array(Shortage, { maxItems: MAX_LINES }),
  }),
  closed({ order_id: Id, outcome: Type.Literal("RELEASED"), lines_digest: LinesDigest }),
]);
export type Outcome = Static<typeof Outcome>;

/** The answer to `order.created` and `order.cancelled`, and the only thing that settles them. */
export const stockSettled = event("stock.settled", closed({ orders: Type.Array(Outcome, { minItems: 1, maxItems: MAX_BATCH }) }));

const Refusal = closed({
  order_id: Id,
  event: Type.String(),
  /** Asking again can't help: the event breaks its contract. */
  permanent: Type.Boolean(),
  message: Type.String(),
});
export type Refusal = Static<typeof Refusal>;

/** These could not be processed, and why. Ten refusals, or one permanent one, park the event. */
export const stockRefused = event("stock.refused", closed({ orders: Type.Array(Refusal, { minItems: 1, maxItems: MAX_BATCH }) }));

const Reservation = closed({
  order_id: Id,
  state: Type.Union([Type.Literal("RESERVED"), Type.Literal("REJECTED"), Type.Literal("RELEASED")]),
  lines: Type.Array(closed({ product_id: Id, quantity: Type.Integer() }), { maxItems: MAX_LINES }),
});
export type Reservation = Static<typeof Reservation>;

/** Lines that the reservations of one response have, give or take those of one. */
export const RESERVED_LINES_PER_CALL = 20_000;

/**
 * The reservations of the orders after one id, up to and with another, for the audit. Where there are more than fit into a
 * response, `next` is the id after which to ask again.
 */
export const reservations = action("products.reservations", {
  params: closed({ after: Id, upto: Id }),
  result: closed({ items: Type.Array(Reservation, { maxItems: 10_000 }), next: nullable(Id) }),
  repeatable: true,
  timeout: 10_000,
});

/**
 * Releases what is reserved for an order, for a repair: its stock comes back. Where nothing is reserved it leaves a tombstone, so that a
 * late `order.created` reserves nothing. Nobody is told: the order has gone, or is decided.
 */
export const release = action("products.release", { params: closed({ order_id: Id }), result: closed({}), repeatable: true });

export const AuditCheck = closed({
  name: Type.String(),
  ok: Type.Boolean(),
  violations: Type.Integer({ minimum: 0 }),
  sample: Type.Array(Type.String()),
});
export type AuditCheck = Static<typeof AuditCheck>;

/** The invariants that product_db can check by itself, in one snapshot of it. */
export const productsAudit = action("products.audit", {
  params: closed({}),
  result: Type.Array(AuditCheck),
  repeatable: true,
  timeout: 60_000,
});

export const productsHealth = health("products");
