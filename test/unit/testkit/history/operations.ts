import type { Status } from "../../../../contracts/orders";
import { checkHistory } from "../../../../testkit/history/check";
import type { Of, Operation, OrderSeen, ProductSeen } from "../../../../testkit/history/operation";

/** `[begin, end]` in ms; without an end, the outcome is unknown. */
type When = readonly [begin: number, end?: number];

const call = ([begin, end]: When, user: string) =>
  end === undefined ? ({ begin, user, outcome: "unknown" } as const) : ({ begin, end, user, outcome: "ok" } as const);

/** Makes an operation one that the shop refused. */
export const refuse = <O extends Operation>(operation: O, status: number, code: string): O => {
  const refused = { ...operation, outcome: "failed", status, code };
  if ("seen" in refused) delete refused.seen;
  return refused;
};

/** A version of a product, as a client sees it, if all changes were edits. */
export const product = (version: number, quantity: number, price = 10, id = "p"): ProductSeen => ({
  id,
  version,
  edits: version,
  quantity,
  price,
});

export const create = (when: When, quantity: number, price = 10): Of<"product.create"> => ({
  kind: "product.create",
  ...call(when, "seller"),
  quantity,
  price,
  seen: product(1, quantity, price),
});

export const readProduct = (when: When, seen: ProductSeen): Of<"product.read"> => ({
  kind: "product.read",
  ...call(when, "ann"),
  product: seen.id,
  seen,
});

/** A PATCH of the price, if its edits are those of `ifMatch`; without `seen` its response is unknown. */
export const patch = (when: When, price: number, ifMatch?: number, seen?: ProductSeen): Of<"product.patch"> => ({
  kind: "product.patch",
  ...call(when, "seller"),
  product: "p",
  price,
  ...(ifMatch !== undefined && { if_match: ifMatch }),
  ...(seen && { seen }),
});

export const adjust = (when: When, delta: number, seen?: ProductSeen): Of<"product.adjust"> => ({
  kind: "product.adjust",
  ...call(when, "seller"),
  product: "p",
  delta,
  ...(seen && { seen }),
});

interface Placing {
  id?: string;
  key?: string;
  user?: string;
  units?: number;
  created?: number;
  more?: Partial<Of<"order.place">>;
}

/** An order for units of product p; by default order `o` of ann, with the key `k`. */
export const place = (
  when: When,
  { id = "o", key = "k", user = "ann", units = 1, created = 1_000, more = {} }: Placing = {},
): Of<"order.place"> => ({
  kind: "order.place",
  ...call(when, user),
  key,
  lines: [{ product_id: "p", quantity: units }],
  ...(when[1] !== undefined && {
    seen: { id, version: 1, status: "PENDING", total: 10, created },
    digest: `body of ${id}`,
    replayed: false,
  }),
  ...more,
});

const WAYS: Readonly<Record<Status, Status[]>> = {
  PENDING: ["PENDING"],
  CONFIRMED: ["PENDING", "CONFIRMED"],
  REJECTED: ["PENDING", "REJECTED"],
  CANCELLED: ["PENDING", "CONFIRMED", "CANCELLED"],
};

/** An order in a status, with the longest history that leads there. */
export const order = (status: Status, more: Partial<OrderSeen> = {}): OrderSeen => ({
  id: "o",
  status,
  version: WAYS[status].length,
  history: WAYS[status],
  ...more,
});

export const readOrder = (when: When, seen: OrderSeen, user = "ann"): Of<"order.read"> => ({
  kind: "order.read",
  ...call(when, user),
  order: seen.id,
  seen,
});

export const cancel = (when: When, seen?: OrderSeen, user = "ann"): Of<"order.cancel"> => ({
  kind: "order.cancel",
  ...call(when, user),
  order: seen?.id ?? "o",
  ...(seen && { seen }),
});

/** A list of orders that is one page long. */
export const list = (
  [begin, end]: readonly [number, number],
  items: readonly (readonly [id: string, status: Status, created: number])[],
  more: Partial<Of<"order.list">> = {},
): Of<"order.list"> => ({
  kind: "order.list",
  ...call([begin, end], "ann"),
  pages: [{ begin, end, items: items.map(([id, status, created]) => ({ id, status, created })) }],
  complete: true,
  ...more,
});

/** A stream that the server ended. */
export const stream = (
  when: readonly [number, number],
  events: readonly (readonly [at: number, id: number, status: Status])[],
  more: Partial<Of<"order.stream">> = {},
): Of<"order.stream"> => ({
  kind: "order.stream",
  ...call(when, "ann"),
  order: "o",
  events: events.map(([at, id, status]) => ({ at, id, status })),
  closed: "server",
  ...more,
});

export const quiet = (begin: number, end: number): Of<"quiet"> => ({ kind: "quiet", begin, end });

/** The violations that the checks find, as `check: message`. */
export const found = (...operations: readonly Operation[]): string[] =>
  checkHistory(operations).violations.map(({ check, message }) => `${check}: ${message}`);
