import { Type, type Static } from "@sinclair/typebox";
import {
  action,
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
  outboxedEvent,
  Page,
  RowId,
  Timestamp,
  Versions,
} from "./contract";
import { AuditCheck } from "./products";
import { Role } from "./users";

export const Status = Type.Union(
  [Type.Literal("PENDING"), Type.Literal("CONFIRMED"), Type.Literal("REJECTED"), Type.Literal("CANCELLED")],
  {
    title: "Order status",
    description:
      "PENDING until its stock is reserved, then CONFIRMED; REJECTED if there is not enough stock; CANCELLED by its buyer or an admin.",
  },
);
export type Status = Static<typeof Status>;

/** Whether an order can no longer change. */
export const isFinal = (status: Status): boolean => status === "REJECTED" || status === "CANCELLED";

export const Line = named("New order line", "A product to order.", {
  product_id: Id,
  quantity: Type.Integer({ minimum: 1, maximum: 10_000, description: "Units. Those of lines with the same product are added up." }),
});
export type Line = Static<typeof Line>;

const OrderLine = named("Order line", "An ordered product, with its name and price at the time of ordering.", {
  product_id: Id,
  name: Type.String({ maxLength: 200 }),
  unit_price: Money(9_999_999.99),
  quantity: Type.Integer({ minimum: 1, description: "Units." }),
});

const StatusChange = named("Status change", "When an order got a status.", { status: Status, at: Timestamp });

/** `version` grows with every change and is the ETag. */
export const Order = named("Order", "An order of one user.", {
  id: Id,
  user_id: described(Id, "The user who placed it."),
  status: Status,
  total_price: Money(Number.MAX_SAFE_INTEGER),
  items: Type.Array(OrderLine, { maxItems: MAX_LINES }),
  reason: described(nullable(Type.String({ maxLength: 10_000 })), "Why it is rejected, or why it is not processed; otherwise null."),
  // An order is in each state at most once.
  history: Type.Array(StatusChange, { maxItems: 4, description: "Every status that it has had, the first one first." }),
  created_at: Timestamp,
  updated_at: Timestamp,
  version: Type.Integer({ minimum: 1 }),
});
export type Order = Static<typeof Order>;

/** 1–255 visible ASCII characters; draft-ietf-httpapi-idempotency-key-header. */
export const IdempotencyKey = Type.String({ pattern: "^[\\x21-\\x7e]{1,255}$" });

/** Maximum number of lines in all orders of one `createMany`, whose response contains the lines' names. */
export const LINES_PER_CALL = 2_000;

/**
 * Maximum number of lines in one `getMany`, exceeded by at most one order. Few, so that clients don't wait for several large orders of
 * others.
 */
export const LINES_PER_READ = 128;

/**
 * Maximum number of lines in a small order. Larger orders wait for their stock in separate queues, so that small ones don't wait behind them.
 */
export const SMALL_ORDER_LINES = 8;

const NewOrder = {
  items: Type.Array(Line, { minItems: 1, maxItems: MAX_LINES }),
  idempotency_key: Type.Optional(IdempotencyKey),
};
const Created = closed({ order: Order, replayed: Type.Boolean() });
export type Created = Static<typeof Created>;

/** Milliseconds. Even after two attempts the client gets its response within 5 s; longer than the 2 s wait for a concurrent duplicate's commit. */
const CREATE_TIMEOUT_MS = 2_200;

/**
 * Creates an order: PENDING, before any stock is reserved. For a key that was used before, the first response is returned again
 * (`replayed`), whatever the order's status is now; a key with a different body is IDEMPOTENCY_KEY_REUSED. Without a key a request must not be
 * retried, and the shop does not retry it either.
 */
export const create = action("orders.create", {
  params: named("New order", "What to order.", NewOrder),
  result: Created,
  timeoutMs: CREATE_TIMEOUT_MS,
});

/**
 * Like `create`, but for orders of several users that a gateway batches. Each succeeds or fails individually; the results are in the order of
 * the requests. Each has a key, so that the call can be retried if its response is lost. `request_id` is that of the client's request, for
 * the log. All orders together have at most LINES_PER_CALL lines.
 */
export const createMany = action("orders.createMany", {
  params: closed({
    orders: Type.Array(
      closed({ user_id: Id, ...NewOrder, idempotency_key: IdempotencyKey, request_id: Type.Optional(Type.String({ maxLength: 128 })) }),
      {
        minItems: 1,
        maxItems: MAX_BATCH,
      },
    ),
  }),
  result: Type.Array(Type.Union([Created, FailedItem]), { maxItems: MAX_BATCH }),
  idempotent: true,
  timeoutMs: CREATE_TIMEOUT_MS,
});

const OrderId = described(Id, "The order's id.");

/** ORDER_NOT_FOUND also for another user's order, since its existence must not be revealed. */
export const get = action("orders.get", { params: closed({ id: OrderId }), result: Order, idempotent: true });

/**
 * Like `get`, but for several users at once, in the order of the request; null for an order that is not found. Returns only the first orders
 * that fit into RESPONSE_BYTES and LINES_PER_READ, at least one; the caller has to request the others again.
 */
export const getMany = action("orders.getMany", {
  params: closed({
    orders: Type.Array(closed({ id: Id, user_id: Id, role: Role }), { minItems: 1, maxItems: MAX_BATCH }),
  }),
  result: Type.Array(nullable(Order), { maxItems: MAX_BATCH }),
  idempotent: true,
});

/** The caller's orders, newest first; an admin may list another user's (`user_id`) or `all`. */
export const list = action("orders.list", {
  params: closed({
    status: Type.Optional(Status),
    user_id: Type.Optional(described(Id, "For admins: the orders of this user.")),
    all: Type.Optional(Type.Boolean({ description: "For admins: the orders of everyone." })),
    limit: Type.Optional(Limit),
    cursor: Type.Optional(Cursor),
  }),
  result: Page(Order),
  idempotent: true,
});

/**
 * Cancels an order that is PENDING or CONFIRMED; its stock is released asynchronously. Cancelling again returns the same order. With an
 * Idempotency-Key, a retry gets the first response.
 */
export const cancel = action("orders.cancel", { params: closed({ id: OrderId, versions: Versions }), result: Order, idempotent: true });

/** The user who placed the order, so that users take turns; the nil UUID or absent if unknown. */
const Buyer = Type.Optional(Id);
/** `order.created` and `order.cancelled` are about orders, and products replies to both. */
const TO_PRODUCTS = { repliedBy: "products", list: "orders", subject: "order_id" };

/** An order that needs stock. */
export const CreatedOrder = closed({
  order_id: Id,
  user_id: Buyer,
  lines: Type.Array(closed({ product_id: Id, quantity: Type.Integer({ minimum: 1 }) }), { minItems: 1 }),
});
export type CreatedOrder = Static<typeof CreatedOrder>;

/** Orders that need stock: products reserves it, and replies with `stock.settled` or `stock.refused`. */
export const orderCreated = outboxedEvent("order.created", { ...TO_PRODUCTS, item: CreatedOrder });

/** An order whose stock is to be released. */
export const CancelledOrder = closed({ order_id: Id, user_id: Buyer });
export type CancelledOrder = Static<typeof CancelledOrder>;

/** Orders whose stock is to be released: products replies as to `order.created`. */
export const orderCancelled = outboxedEvent("order.cancelled", { ...TO_PRODUCTS, item: CancelledOrder });

/** Orders whose status has changed, for gateways with clients that follow them. The event may get lost, and nothing relies on it. */
export const orderChanged = event(
  "order.changed",
  closed({ orders: Type.Array(closed({ order_id: Id }), { minItems: 1, maxItems: MAX_BATCH }) }),
);

/**
 * Compares orders with reservations, and checks each database. Orders with a pending outbox row are counted in `in_flight` and are no
 * violations; `oldest_in_flight` is the age in seconds of the oldest such row.
 */
export const audit = action("orders.audit", {
  params: closed({}),
  result: named("Consistency report", "Whether the databases keep every invariant, and agree.", {
    ok: Type.Boolean(),
    checked_at: Timestamp,
    in_flight: Type.Integer({ minimum: 0, description: "Orders with a pending outbox row, which are no violations." }),
    oldest_in_flight: described(nullable(Type.Number()), "The age in seconds of the oldest pending outbox row; null if there is none."),
    parked: Type.Integer({ minimum: 0, description: "Parked outbox rows." }),
    checks: Type.Array(AuditCheck),
  }),
  idempotent: true,
  timeoutMs: 120_000,
});

/** Maximum number of repairs that are made, or listed, per call; and of decisions that are listed. */
export const REPAIRS_PER_CALL = 100;

const difference = {
  order_id: Id,
  what: Type.String({ maxLength: 200, description: "How the order and its reservation differ." }),
};
const RepairAction = Type.Union([Type.Literal("order.created"), Type.Literal("order.cancelled"), Type.Literal("release")], {
  description: "The event to publish again, or `release` for stock to be released.",
});
const Repair = named("Repair", "A difference that can be repaired.", { ...difference, action: RepairAction });
const RepairDecision = named("Repair decision", "A difference that a person must decide.", difference);

/**
 * Repairs differences between orders and reservations after a backup was restored: republishes the events that products has lost, and
 * releases stock that is reserved for orders which don't exist. It never edits a stock count. Differences that a person must decide are
 * counted in `undecided`, and the first are listed in `decisions`. Without `apply` it only lists the repairs. If there are `more`, call it
 * again. For admins.
 */
export const repair = action("orders.repair", {
  params: named("Repair request", "Whether to repair or only to report.", {
    apply: Type.Optional(Type.Boolean({ description: "`true`: make the repairs; otherwise they are only listed." })),
  }),
  result: named("Repair report", "What was repaired, or would be.", {
    applied: Type.Boolean({ description: "Whether the repairs were made." }),
    repairs: Type.Array(Repair, { maxItems: REPAIRS_PER_CALL }),
    decisions: Type.Array(RepairDecision, { maxItems: REPAIRS_PER_CALL, description: "The first of those in `undecided`." }),
    undecided: Type.Integer({ minimum: 0, description: "Differences that a person must decide." }),
    more: Type.Boolean({ description: "Whether there are more repairs, for another request." }),
  }),
  timeoutMs: 120_000,
});

const OutboxState = Type.Union([Type.Literal("PENDING"), Type.Literal("SETTLED"), Type.Literal("PARKED")], {
  description: "PENDING until the consumer has replied, then SETTLED; PARKED if the consumer can't process it.",
});
const OutboxRow = named("Outbox row", "An event that is published until its consumer has replied.", {
  id: RowId,
  order_id: Id,
  event: Type.String(),
  state: OutboxState,
  attempts: Type.Integer({ minimum: 0, description: "How often it was published." }),
  next_attempt_at: Timestamp,
  last_error: described(nullable(Type.String({ maxLength: 500 })), "Why the consumer refused it; null if it did not."),
  created_at: Timestamp,
});

/** Outbox rows, oldest first; by default those that are pending or parked. For admins. */
export const outbox = action("orders.outbox", {
  params: closed({
    state: Type.Optional(
      Type.String({
        pattern: "^(pending|parked|settled)(,(pending|parked|settled))*$",
        default: "pending,parked",
        description: "Only rows in these states, comma-separated.",
      }),
    ),
    limit: Type.Optional(Limit),
    cursor: Type.Optional(Cursor),
  }),
  result: Page(OutboxRow),
  idempotent: true,
});

/** Makes a parked outbox row pending again, as if it were new; NOT_PARKED for any other. Once per Idempotency-Key. For admins. */
export const replay = action("orders.replay", { params: closed({ id: described(RowId, "The row's id.") }), result: closed({}) });

export const ordersHealth = health("orders");
