import type { Scenario } from "./scenarios";

/** A change of one source file: a text that occurs in it exactly once, and its replacement. */
export interface Replacement {
  file: string;
  find: string;
  replace: string;
}

/** The shop without one of its guards, with consequences that a client can observe. */
export interface Mutant {
  name: string;
  /** What goes wrong without the guard. */
  why: string;
  /** What the clients do. */
  scenario: Scenario;
  /** The check that must detect it in their history; others may, too. */
  foundBy: string;
  /** Several if the database has a guard as well, which is then removed, too. */
  replacements: readonly [Replacement, ...Replacement[]];
}

const RESERVATIONS = "services/products/reservations.store.ts";
const PRODUCTS = "services/products/products.service.ts";
const STOCK = "services/products/stock.ts";
const REPLIER = "mixins/replier.mixin.ts";
const INSERT = "services/orders/insert.store.ts";
const READ = "services/orders/read.store.ts";
const TRANSITIONS = "services/orders/transitions.store.ts";
const ORDER = "services/orders/order.ts";
const PRODUCT_DB = "services/products/migrations/001_catalogue_and_stock.sql";
const ORDER_DB = "services/orders/migrations/001_orders.sql";

/** Removes the database's own guards against overselling. */
const NO_CHECKS: readonly Replacement[] = [
  { file: PRODUCT_DB, find: "quantity    bigint not null check (quantity >= 0)", replace: "quantity    bigint not null" },
  { file: PRODUCT_DB, find: "balance    bigint not null check (balance >= 0)", replace: "balance    bigint not null" },
];

export const MUTANTS: readonly Mutant[] = [
  {
    name: "stock is not locked while it is reserved",
    why: "two concurrent orders both get the last unit",
    scenario: "two buyers of the last unit",
    foundBy: "products",
    replacements: [
      {
        file: RESERVATIONS,
        find: "from products where id = any($1) order by id for update",
        replace: "from products where id = any($1) order by id",
      },
      ...NO_CHECKS,
    ],
  },
  {
    name: "stock is reserved whether it suffices or not",
    why: "more is sold than there is",
    scenario: "orders for more than there is",
    foundBy: "products",
    replacements: [
      { file: STOCK, find: "return available === null || available < line.quantity ?", replace: "return available < 0 ?" },
      ...NO_CHECKS,
    ],
  },
  {
    name: "an idempotency key is not unique",
    why: "a repeated request makes a second order",
    scenario: "a repeated key",
    foundBy: "keys",
    replacements: [
      { file: INSERT, find: "\n       on conflict (user_id, idempotency_key) do nothing", replace: "" },
      { file: ORDER_DB, find: ",\n  unique (user_id, idempotency_key)", replace: "" },
    ],
  },
  {
    name: "a key is replayed for any body",
    why: "a client that reuses a key by mistake believes that the second order is placed",
    scenario: "a repeated key",
    foundBy: "keys",
    replacements: [{ file: READ, find: " and o.request_hash = k.request_hash", replace: "" }],
  },
  {
    name: "a cancel that overtakes its create leaves no tombstone",
    why: "a late create reserves stock for a cancelled order",
    scenario: "a cancel that overtakes its create",
    foundBy: "balance",
    replacements: [
      {
        file: RESERVATIONS,
        find: `    await insertReservations(
      query,
      requested.map((order_id) => ({ order_id, lines: [] })),
      "RELEASED",
    );`,
        replace: "",
      },
      {
        file: RESERVATIONS,
        find: "const taken = firstOf(requested, found, maxLines);",
        replace: `const taken = requested.map((id): Reservation =>
      found.find((r) => r.order_id === id) ?? { order_id: id, state: "RELEASED", lines: [], shortages: [] });`,
      },
    ],
  },
  {
    name: "an order's outbox row is not written",
    why: "an order whose event is lost stays PENDING for ever",
    scenario: "a lost order.created",
    foundBy: "orders",
    replacements: [{ file: INSERT, find: "from placed p order by p.n", replace: "from placed p where false order by p.n" }],
  },
  {
    name: "a cancel's outbox row is not written",
    why: "the stock of a cancelled order is never released",
    scenario: "a cancel of a confirmed order",
    foundBy: "balance",
    replacements: [
      {
        file: TRANSITIONS,
        find: "created.event = 'order.created' where o.id = $1`",
        replace: "created.event = 'order.created' where false and o.id = $1`",
      },
    ],
  },
  {
    name: "the stored outcome of a reservation is ignored",
    why: "a repeated event takes the stock of its order twice",
    scenario: "a repeated order.created",
    foundBy: "balance",
    replacements: [
      { file: REPLIER, find: "(inserted.has(subject) ? item : [])", replace: "item" },
      { file: PRODUCT_DB, find: "create unique index stock_movements_once", replace: "create index stock_movements_once" },
    ],
  },
  {
    name: "a release gives back twice what was reserved",
    why: "a cancel creates stock out of nothing",
    scenario: "a cancel of a confirmed order",
    foundBy: "balance",
    replacements: [
      { file: STOCK, find: `"RELEASE", line.product_id, line.quantity)`, replace: `"RELEASE", line.product_id, 2 * line.quantity)` },
      {
        file: PRODUCT_DB,
        find: "reserved    bigint not null default 0 check (reserved >= 0)",
        replace: "reserved    bigint not null default 0",
      },
    ],
  },
  {
    name: "If-Match is ignored",
    why: "a change overwrites another that its client has not seen",
    scenario: "two changes of one version, one after the other",
    foundBy: "conditional updates",
    replacements: [{ file: PRODUCTS, find: "...unedited(tags) }, returning", replace: "}, returning" }],
  },
  {
    name: "the edits are compared only before the update",
    why: "of two concurrent changes, both succeed and one is lost",
    scenario: "two changes of one version, at one time",
    foundBy: "conditional updates",
    replacements: [
      { file: PRODUCTS, find: "...unedited(tags) }, returning", replace: "}, returning" },
      {
        file: PRODUCTS,
        find: 'await this.findOwn(ctx, id, "product.updated");',
        replace: `const { edits } = await this.findOwn(ctx, id, "product.updated");
        if (tags !== undefined && !tags.some((tag) => tag.edits === edits)) throw stale();`,
      },
    ],
  },
  {
    name: "a PATCH compares the whole ETag",
    why: "a sale makes an editor's change fail",
    scenario: "a sale between a read and a change",
    foundBy: "conditional updates",
    replacements: [
      { file: PRODUCTS, find: "tags && { edits: tags", replace: "tags && { version: tags.map(({ version }) => version), edits: tags" },
    ],
  },
  {
    name: "a movement of stock leaves the version as it is",
    why: "one ETag stands for two representations",
    scenario: "a read before and after a reservation",
    foundBy: "products",
    replacements: [
      { file: RESERVATIONS, find: "reserved = p.reserved - c.delta, version = p.version + 1", replace: "reserved = p.reserved - c.delta" },
    ],
  },
  {
    name: "an outcome settles an order whatever its status",
    why: "a late RESERVED brings a cancelled order back",
    scenario: "a cancel that is faster than the reply",
    foundBy: "orders",
    replacements: [
      { file: ORDER, find: "=> AFTER[status][input];", replace: `=> (input === "RESERVED" ? "CONFIRMED" : AFTER[status][input]);` },
    ],
  },
  {
    name: "an order is not locked while it is settled",
    why: "a cancel in between is overwritten",
    scenario: "a cancel while the order is settled",
    foundBy: "orders",
    replacements: [
      {
        file: TRANSITIONS,
        find: "select id, status, lines_digest from orders where id = any($1) order by id for update",
        replace: "select id, status, lines_digest from orders where id = any($1) order by id",
      },
    ],
  },
  {
    name: "a reply is accepted whatever its lines",
    why: "an order is CONFIRMED by a reservation that is not its own",
    scenario: "a reply for other lines",
    foundBy: "balance",
    replacements: [{ file: ORDER, find: "return isTombstone || reply.lines_digest === order.lines_digest ?", replace: "return order ?" }],
  },
  {
    name: "anyone may read an order",
    why: "its existence, lines and price are revealed to strangers",
    scenario: "a stranger",
    foundBy: "own writes",
    replacements: [{ file: READ, find: " and (o.user_id = requested.user_id or requested.role = 'admin')", replace: "" }],
  },
  {
    name: "anyone may cancel an order",
    why: "a stranger cancels another user's order",
    scenario: "a stranger",
    foundBy: "own writes",
    replacements: [{ file: "services/orders/orders.service.ts", find: "if (!isSeenBy(order, caller)) throw notFound();", replace: "" }],
  },
  {
    name: "a page begins with the last order of the one before",
    why: "a walk through a list shows orders twice",
    scenario: "a walk through a list",
    foundBy: "lists",
    replacements: [{ file: READ, find: "where.push(`(${keys.join()}) < (", replace: "where.push(`(${keys.join()}) <= (" }],
  },
  {
    name: "a page leaves out an order at its end",
    why: "a walk through a list misses orders",
    scenario: "a walk through a list",
    foundBy: "lists",
    replacements: [
      {
        file: "mixins/keyset.ts",
        find: "return { items, next_cursor: rows.length > items.length && last !== undefined ? cursorOf(last) : null };",
        replace:
          "return { items: rows.length > items.length ? items.slice(0, -1) : items, next_cursor: rows.length > items.length && last !== undefined ? cursorOf(last) : null };",
      },
    ],
  },
  {
    name: "a gateway remembers the orders that it has read",
    why: "after a change, the response to a read depends on the gateway",
    scenario: "reads through two gateways",
    foundBy: "orders",
    replacements: [
      {
        file: "services/api/batched-calls.ts",
        find: "order: (id, { id: user_id, role }, requester) => order({ id, user_id, role }, requester),",
        replace: `order: async (id, { id: user_id, role }, requester) => {
      const found = remembered.get(id) ?? (await order({ id, user_id, role }, requester));
      remembered.set(id, found);
      return found;
    },`,
      },
      {
        file: "services/api/batched-calls.ts",
        find: "const keyOf = (list: List): string =>",
        replace: "const remembered = new Map<string, orders.Order>();\n  const keyOf = (list: List): string =>",
      },
    ],
  },
  {
    name: "a stream sends only the last of several new events",
    why: "a client that follows an order misses the earlier events",
    scenario: "a followed order",
    foundBy: "streams",
    replacements: [
      {
        file: "services/api/streams/order-stream.ts",
        find: "return all.slice(seen).join",
        replace: "return all.slice(seen).slice(-1).join",
      },
    ],
  },
  {
    name: "a stream forgets what it has sent",
    why: "each change repeats all events before it",
    scenario: "a followed order",
    foundBy: "streams",
    replacements: [{ file: "services/api/streams/order-stream.ts", find: "this.seen = order.history.length;", replace: "" }],
  },
];
