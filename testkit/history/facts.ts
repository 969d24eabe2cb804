import type { Status } from "../../contracts/orders";
import type { Of, Operation, Outcome, ProductSeen } from "./operation";
import { NONE, setOf, type Statuses } from "./progress";

export type ProductCall = Of<"product.create" | "product.read" | "product.patch" | "product.adjust">;
/** A call to one product whose response shows the product. */
export type ProductSighting = ProductCall & { seen: ProductSeen; end: number };
export type OrderCall = Of<"order.read" | "order.cancel" | "order.stream">;
export type Placing = Of<"order.place">;

/** A client saw an order in a status, between two moments. */
export interface OrderSighting {
  begin: number;
  end: number;
  status: Status;
  /** All statuses that it has had, if the response includes its history. */
  history: Statuses | undefined;
  by: Operation;
}

/** Statuses that an order had by the time `at`, when that became known. */
export interface Happening {
  at: number;
  value: Statuses;
  by: Operation;
}

/** Everything about one product in a history. */
export interface ProductFacts {
  id: string;
  create?: Of<"product.create">;
  calls: ProductCall[];
}

/** Everything about one order in a history. */
export interface OrderFacts {
  id: string;
  /** The first 201 for it, and when the client had read it. */
  placed?: Placing;
  placedAt: number;
  /** When the first attempt with its key began. */
  since: number;
  calls: OrderCall[];
  sightings: OrderSighting[];
  happenings: Happening[];
}

export interface Facts {
  operations: readonly Operation[];
  products: Map<string, ProductFacts>;
  orders: Map<string, OrderFacts>;
  /** Attempts grouped by user and key; an attempt without a key is a group of its own. */
  keys: Placing[][];
  quiets: Of<"quiet">[];
}

export const isSighting = (call: ProductCall): call is ProductSighting => call.seen !== undefined && call.end !== undefined;
/** Whether an operation may have had an effect. */
export const mayHaveHappened = ({ outcome }: { outcome: Outcome }): boolean => outcome !== "failed";

/** Groups the operations of a history by product, order and key, once for all checks. */
export function groupOperations(operations: readonly Operation[]): Facts {
  const products = new Map<string, ProductFacts>();
  const orders = new Map<string, OrderFacts>();
  const keys = new Map<string, Placing[]>();
  const quiets: Of<"quiet">[] = [];
  const product = (id: string) => getOrCreate(products, id, () => ({ id, calls: [] }));
  const order = (id: string) =>
    getOrCreate(orders, id, () => ({ id, placedAt: Infinity, since: Infinity, calls: [], sightings: [], happenings: [] }));

  for (const [i, by] of operations.entries()) {
    switch (by.kind) {
      case "product.create":
        if (by.seen === undefined) break; // its id is unknown
        product(by.seen.id).calls.push(by);
        product(by.seen.id).create = by;
        break;
      case "product.read":
      case "product.patch":
      case "product.adjust":
        product(by.product).calls.push(by);
        break;
      case "order.place": {
        const key = by.key === undefined ? `${i}` : JSON.stringify([by.user, by.key]);
        getOrCreate(keys, key, () => []).push(by);
        break;
      }
      case "order.read":
      case "order.cancel":
        order(by.order).calls.push(by);
        if (by.end === undefined) break;
        if (by.seen !== undefined) {
          const history = by.seen.history && setOf(by.seen.history);
          see(order(by.order), { begin: by.begin, end: by.end, status: by.seen.status, history, by });
        } else if (by.code === "ORDER_NOT_CANCELLABLE")
          see(order(by.order), { begin: by.begin, end: by.end, status: "REJECTED", history: undefined, by });
        break;
      case "order.stream":
        order(by.order).calls.push(by);
        for (const { at, status } of by.events) order(by.order).happenings.push({ at, value: setOf([status]), by });
        break;
      case "order.list":
        for (const { begin, end, items } of by.pages)
          for (const { id, status } of items) see(order(id), { begin, end, status, history: undefined, by });
        break;
      case "quiet":
        quiets.push(by);
        break;
      case "product.list":
        break;
      default:
        by satisfies never;
    }
  }
  for (const attempts of keys.values()) place(attempts, order);
  return { operations, products, orders, keys: [...keys.values()], quiets };
}

function see(order: OrderFacts, sighting: OrderSighting): void {
  order.sightings.push(sighting);
  order.happenings.push({ at: sighting.end, value: setOf([sighting.status]) | (sighting.history ?? NONE), by: sighting.by });
}

/** The response to POST /orders has the status PENDING even if the order has moved on, so it only shows that the order exists. */
function place(attempts: readonly Placing[], order: (id: string) => OrderFacts): void {
  const since = attempts.reduce((first, { begin }) => Math.min(first, begin), Infinity);
  for (const attempt of attempts) {
    const { seen, end } = attempt;
    if (seen === undefined || end === undefined) continue;
    const facts = order(seen.id);
    facts.since = Math.min(facts.since, since);
    if (end >= facts.placedAt) continue;
    facts.placed = attempt;
    facts.placedAt = end;
  }
}

/** The value of a key, created if missing. */
export function getOrCreate<T>(map: Map<string, T>, key: string, make: () => T): T {
  let value = map.get(key);
  if (value === undefined) map.set(key, (value = make()));
  return value;
}
