import { randomUUID } from "node:crypto";
import type { CallingOptions, ServiceBroker } from "moleculer";
import { call } from "../../broker/contract";
import { itemError, problem } from "../../broker/errors";
import { currentRequestId } from "../../broker/logger";
import type { Params, Result } from "../../contracts/contract";
import * as orders from "../../contracts/orders";
import * as products from "../../contracts/products";
import type { Caller } from "../../contracts/users";
import { batch } from "../../mixins/batching";

/** The calls that most requests make; those that wait in this gateway at the same moment travel as one. */
export interface Gather {
  product(id: number): Promise<products.Product>;
  /** Those that ask for the same page at the same moment share one answer. */
  products(list: Params<typeof products.list>): Promise<Result<typeof products.list>>;
  order(id: number, caller: Caller): Promise<orders.Order>;
  createOrder(order: Params<typeof orders.create>, caller: Caller): Promise<orders.Created>;
}

/**
 * Milliseconds that a request may wait for its batch, whatever those before it met: with the call itself its client still has
 * an answer within 5 s. With a repeat of the call, only what has waited no longer than UNHURRIED.
 */
const PATIENCE = 2_600;
const UNHURRIED = 500;
const inTime = (waited: number): CallingOptions => (waited > UNHURRIED ? { retries: 0 } : {});
/** A list may take long: not too many others wait for it. */
const SMALL = { size: 32, underWay: 4, patience: PATIENCE };

type List = Params<typeof products.list>;
type Wish = Params<typeof orders.createMany>["orders"][number];
type Wanted = Params<typeof orders.getMany>["orders"][number];

export function gather(broker: ServiceBroker): Gather {
  const order = batch<Wanted, orders.Order>(
    async (wanted, waited) =>
      (await call(broker, orders.getMany, { orders: [...wanted] }, inTime(waited))).map(
        (found) => found ?? problem("ORDER_NOT_FOUND", "there is no such order"),
      ),
    { patience: PATIENCE },
  );
  const create = batch<Wish, orders.Created>(
    async (wishes, waited) =>
      (await call(broker, orders.createMany, { orders: [...wishes] }, inTime(waited))).map((made) =>
        "error" in made ? itemError(made) : made,
      ),
    { patience: PATIENCE },
  );
  return {
    product: batch<number, products.Product>(
      async (ids, waited) =>
        (await call(broker, products.getMany, { ids: [...ids] }, inTime(waited))).map(
          (found) => found ?? problem("PRODUCT_NOT_FOUND", "there is no such product"),
        ),
      { patience: PATIENCE },
    ),
    products: batch<List, Result<typeof products.list>>(async (lists, waited) => {
      const keys = lists.map((list) => JSON.stringify(list));
      const distinct = new Map(keys.map((key, i) => [key, lists[i]]));
      const pages = await call(broker, products.listMany, { lists: [...distinct.values()].flatMap((list) => list ?? []) }, inTime(waited));
      const answers = new Map([...distinct.keys()].map((key, i) => [key, pages[i]]));
      return keys.map((key) => {
        const page = answers.get(key);
        return page === undefined ? new Error("a page was not answered") : "error" in page ? itemError(page) : page;
      });
    }, SMALL),
    order: (id, { id: user_id, role }) => order({ id, user_id, role }),
    createOrder: (wish, { id: user_id }) => {
      const request_id = currentRequestId();
      return create({ idempotency_key: randomUUID(), ...wish, user_id, ...(request_id !== undefined && { request_id }) });
    },
  };
}
