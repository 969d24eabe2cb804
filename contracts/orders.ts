import { Type, type Static } from "@sinclair/typebox";
import {
  action,
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
  Timestamp,
  Versions,
} from "./contract";
import { AuditCheck } from "./products";
import { Role } from "./users";

export const Status = Type.Union([Type.Literal("PENDING"), Type.Literal("CONFIRMED"), Type.Literal("REJECTED"), Type.Literal("CANCELLED")]);
export type Status = Static<typeof Status>;

/** Whether an order stays as it is for ever. */
export const isFinal = (status: Status): boolean => status === "REJECTED" || status === "CANCELLED";

export const Line = closed({ product_id: Id, quantity: Type.Integer({ minimum: 1, maximum: 10_000 }) });
export type Line = Static<typeof Line>;

/** Names and prices are those of the moment of ordering; `version` grows with every change and is the ETag. */
export const Order = closed({
  id: Id,
  user_id: Id,
  status: Status,
  total_price: Money(Number.MAX_SAFE_INTEGER),
  items: Type.Array(
    closed({
      product_id: Id,
      name: Type.String({ maxLength: 200 }),
      unit_price: Money(9_999_999.99),
      quantity: Type.Integer({ minimum: 1 }),
    }),
    { maxItems: MAX_LINES },
  ),
  reason: nullable(Type.String({ maxLength: 10_000 })),
  // An order is in each state once at most.
  history: Type.Array(closed({ status: Status, at: Timestamp }), { maxItems: 4 }),
  created_at: Timestamp,
  updated_at: Timestamp,
  version: Type.Integer({ minimum: 1 }),
});
export type Order = Static<typeof Order>;

/** 1–255 visible ASCII characters; draft-ietf-httpapi-idempotency-key-header. */
export const IdempotencyKey = Type.String({ pattern: "^[\\x21-\\x7e]{1,255}$" });

/** Most lines of all orders of one `createMany`, and give or take an order of one `getMany`: the response has their names. */
export const LINES_PER_CALL = 2_000;

/** Lines; an order of more is large. Large orders wait for their stock in queues of their own, so that the others don't wait behind them. */
export const SMALL_ORDER = 8;

const NewOrder = {
  items: Type.Array(Line, { minItems: 1, maxItems: MAX_LINES }),
  idempotency_key: Type.Optional(IdempotencyKey),
};
const Created = closed({ order: Order, replayed: Type.Boolean() });
export type Created = Static<typeof Created>;

/** Milliseconds: twice this, and the client still has its answer within 5 s; more than the 2 s that a twin's commit is waited for. */
const CREATE_TIMEOUT = 2_200;

/**
 * Takes an order: PENDING, before any stock is touched. With a key that was used before, the first answer is given
 * again (`replayed`), whatever has become of the order since; a key with other lines is IDEMPOTENCY_KEY_REUSED.
 * Only a key lets a caller repeat; without one, nobody repeats it for the caller either.
 */
export const create = action("orders.create", {
  params: closed(NewOrder),
  result: Created,
  timeout: CREATE_TIMEOUT,
});

/**
 * As `create`, for orders of several people that wait in a gateway at the same moment. Each succeeds or fails by itself:
 * the answers stand in the order asked. Each has a key, so that a lost answer can be asked for again. `request_id` is that
 * of its request, for the log. All of them together have LINES_PER_CALL lines at most.
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
  repeatable: true,
  timeout: CREATE_TIMEOUT,
});

/** ORDER_NOT_FOUND also for another person's order: its existence is not told. */
export const get = action("orders.get", { params: closed({ id: Id }), result: Order, repeatable: true });

/**
 * As `get`, for several people at once, in the order asked; null for what is not found. Only as many of the first as fit
 * into RESPONSE_BYTES and LINES_PER_CALL, at least one: the others have to be asked for again.
 */
export const getMany = action("orders.getMany", {
  params: closed({
    orders: Type.Array(closed({ id: Id, user_id: Id, role: Role }), { minItems: 1, maxItems: MAX_BATCH }),
  }),
  result: Type.Array(nullable(Order), { maxItems: MAX_BATCH }),
  repeatable: true,
});

/** One's own orders, newest first; an admin may ask for another person's (`user_id`) or for `all`. */
export const list = action("orders.list", {
  params: closed({
    status: Type.Optional(Status),
    user_id: Type.Optional({ ...Id, description: "For admins: the orders of this person." }),
    all: Type.Optional(Type.Boolean({ description: "For admins: the orders of everyone." })),
    limit: Type.Optional(Limit),
    cursor: Type.Optional(Cursor),
  }),
  result: Page(Order),
  repeatable: true,
});

/** From PENDING or CONFIRMED; the stock comes back by itself. Cancelling again gives the same order. */
export const cancel = action("orders.cancel", { params: closed({ id: Id, versions: Versions }), result: Order, repeatable: true });

/** These orders wait for stock. Each is validated by itself, so that one broken order can't hold up the others. */
export const orderCreated = event(
  "order.created",
  closed({ orders: Type.Array(Type.Object({ order_id: Id }), { minItems: 1, maxItems: MAX_BATCH }) }),
);
/** The user whose order it is, so that users take turns; the nil UUID or none where that is unknown. */
const Buyer = Type.Optional(Id);

/** One order of `order.created`. */
export const CreatedOrder = closed({
  order_id: Id,
  user_id: Buyer,
  lines: Type.Array(closed({ product_id: Id, quantity: Type.Integer({ minimum: 1 }) }), { minItems: 1 }),
});
export type CreatedOrder = Static<typeof CreatedOrder>;

/** These orders give their stock back. */
export const orderCancelled = event(
  "order.cancelled",
  closed({ orders: Type.Array(Type.Object({ order_id: Id }), { minItems: 1, maxItems: MAX_BATCH }) }),
);
/** One order of `order.cancelled`. */
export const CancelledOrder = closed({ order_id: Id, user_id: Buyer });
export type CancelledOrder = Static<typeof CancelledOrder>;

/** The status of these orders has changed. For whoever shows them: it may get lost, and nothing relies on it. */
export const orderChanged = event(
  "order.changed",
  closed({ orders: Type.Array(closed({ order_id: Id }), { minItems: 1, maxItems: MAX_BATCH }) }),
);

/**
 * Compares orders with reservations and each database with itself. What is still on its way (an order with an
 * unsettled outbox row) is counted in `in_flight` and is no violation; `oldest_in_flight` is its greatest age, seconds.
 */
export const audit = action("orders.audit", {
  params: closed({}),
  result: closed({
    ok: Type.Boolean(),
    checked_at: Timestamp,
    in_flight: Type.Integer({ minimum: 0 }),
    oldest_in_flight: nullable(Type.Number()),
    parked: Type.Integer({ minimum: 0 }),
    checks: Type.Array(AuditCheck),
  }),
  repeatable: true,
  timeout: 120_000,
});

/** Most repairs that are made, or shown, at once; and most of what a person must decide. */
export const REPAIRS_PER_CALL = 100;

const Repair = {
  order_id: Id,
  /** How the order and its reservation differ. */
  what: Type.String({ maxLength: 200 }),
};

/**
 * Mends what differs between orders and reservations after a backup was restored: asks products again about what it has lost, and
 * releases the stock that is reserved for orders that don't exist. It edits no stock count. What it can't know is in `decisions`, the first
 * of `undecided` in all. Without `apply` it only says what it would do. Where there are `more`, it is to be called again. For admins.
 */
export const repair = action("orders.repair", {
  params: closed({ apply: Type.Optional(Type.Boolean()) }),
  result: closed({
    applied: Type.Boolean(),
    repairs: Type.Array(
      closed({ ...Repair, action: Type.Union([Type.Literal("order.created"), Type.Literal("order.cancelled"), Type.Literal("release")]) }),
      { maxItems: REPAIRS_PER_CALL },
    ),
    decisions: Type.Array(closed(Repair), { maxItems: REPAIRS_PER_CALL }),
    undecided: Type.Integer({ minimum: 0 }),
    more: Type.Boolean(),
  }),
  timeout: 120_000,
});

const OutboxState = Type.Union([Type.Literal("PENDING"), Type.Literal("SETTLED"), Type.Literal("PARKED")]);

/** What waits, oldest first: announcements without an answer, and those that were given up. For admins. */
export const outbox = action("orders.outbox", {
  params: closed({
    state: Type.Optional(Type.String({ pattern: "^(pending|parked|settled)(,(pending|parked|settled))*$", default: "pending,parked" })),
    limit: Type.Optional(Limit),
    cursor: Type.Optional(Cursor),
  }),
  result: Page(
    closed({
      id: RowId,
      order_id: Id,
      event: Type.String(),
      state: OutboxState,
      attempts: Type.Integer({ minimum: 0 }),
      next_attempt_at: Timestamp,
      last_error: nullable(Type.String({ maxLength: 500 })),
      created_at: Timestamp,
    }),
  ),
  repeatable: true,
});

/** A parked announcement tries again, as if it were new; NOT_PARKED for any other. For admins. */
export const replay = action("orders.replay", { params: closed({ id: RowId }), result: closed({}) });

export const ordersHealth = health("orders");
