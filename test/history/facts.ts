import type { Status } from "../../contracts/orders";
import type { Of, Operation, Outcome, ProductSeen } from "./operation";
import { NONE, setOf, type Statuses } from "./progress";

export type ProductCall = Of<"product.create" | "product.read" | "product.patch" | "product.adjust">;
/** A call to one product whose response says how it is. */
export type ProductSighting = ProductCall & { seen: ProductSeen; end: number };
export type OrderCall = Of<"order.read" | "order.cancel" | "order.stream">;
export type Placing = Of<"order.place">;

/** Somebody saw, between two moments, an order in a status. */
export interface OrderSighting {
  begin: number;
  end: number;
  status: Status;
  /** All statuses that it was in, where the response has its history. */
  history: Statuses | undefined;
  by: Operation;
}

/** An order has been in a status at the latest when this was known. */
export interface Happening {
  at: number;
  value: Statuses;
  by: Operation;
}

/** All that a history has of one product. */
export interface ProductFacts {
  id: string;
  create?: Of<"product.create">;
  calls: ProductCall[];
}

/** All that a history has of one order. */
export interface OrderFacts {
  id: string;
  /** The first 201 for it, and when its client had read that. */
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
  /** By user and key; each attempt without a key by itself. */
  keys: Placing[][];
  quiets: Of<"quiet">[];
}

export const isSighting = (call: ProductCall): call is ProductSighting => call.seen !== undefined && call.end !== undefined;
/** May have had an effect. */
export const mayHaveHappened = ({ outcome }: { outcome: Outcome }): boolean => outcome !== "failed";

/** Sorts a history by what its operations are about, once for all checks. */
export function gather(operations: readonly Operation[]): Facts {
  const products = new Map<string, ProductFacts>();
  const orders = new Map<string, OrderFacts>();
  const keys = new Map<string, Placing[]>();
  const quiets: Of<"quiet">[] = [];
  const product = (id: string) => entry(products, id, () => ({ id, calls: [] }));
  const order = (id: string) =>
    entry(orders, id, () => ({ id, placedAt: Infinity, since: Infinity, calls: [], sightings: [], happenings: [] }));

  for (const [i, by] of operations.entries()) {
    switch (by.kind) {
      case "product.create":
        if (by.seen === undefined) break; // nobody knows its id
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
        entry(keys, key, () => []).push(by);
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

/** The response to a placing says PENDING whatever has become of the order: it shows that the order exists, and no more. */
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

/** The value of a key, made where there is none. */
export function entry<T>(map: Map<string, T>, key: string, make: () => T): T {
  let value = map.get(key);
  if (value === undefined) map.set(key, (value = make()));
  return value;
}
