import { randomUUID } from "node:crypto";
import type { CallingOptions, ServiceBroker } from "moleculer";
import { call } from "../../broker/contract";
import { errorType, itemError, problem } from "../../broker/errors";
import { currentRequestId } from "../../broker/request";
import type { Params, Result } from "../../contracts/contract";
import * as orders from "../../contracts/orders";
import * as products from "../../contracts/products";
import type { Caller } from "../../contracts/users";
import { batch, type Requester } from "../../mixins/batching";
import { SlowAddresses } from "../../mixins/fair-queue";

/** Batched calls: requests pending in this gateway at the same moment share one call. Covers the most frequent requests. */
export interface BatchedCalls {
  product(id: string, requester: Requester): Promise<products.Product>;
  /** Requests for the same page at the same moment share one result. */
  products(list: List, requester: Requester): Promise<Result<typeof products.list>>;
  order(id: string, caller: Caller, requester: Requester): Promise<orders.Order>;
  createOrder(order: Params<typeof orders.create>, caller: Caller, requester: Requester): Promise<orders.Created>;
}

/**
 * Time that a request may wait for its batch, in ms: together with the call itself, the client still has a response within 5 s.
 * The call is retried only if its requests have waited no longer than RETRY_WITHIN_MS.
 */
const PATIENCE_MS = 2_600;
const RETRY_WITHIN_MS = 500;
const retryOptions = (waitedMs: number): CallingOptions => (waitedMs > RETRY_WITHIN_MS ? { retries: 0 } : {});

/** Small, since an order may have 100 lines and each request waits for its whole batch. */
const ORDERS_PER_READ = 4;
/**
 * The gateway has validated each order. So if the batch breaks its contract, the orders node runs the previous release, which does not know a
 * field of some of them: the others must not be refused with them.
 */
const CREATES = {
  patienceMs: PATIENCE_MS,
  shouldRetryIndividually: (error: unknown): boolean => errorType(error) === "VALIDATION_ERROR",
  inParallel: true,
};
/** Small orders have up to eight lines: an order would wait a quarter of a second for two batches of 32 such orders on busy cores. */
const SMALL_CREATES = { weight: { of: ({ items }: NewOrder) => items.length, max: 64 } };
/** Large orders keep a database core busy: one batch of them at a time, apart from small orders, which don't wait for it. */
const LARGE_CREATES = { inFlight: 1, weight: { of: ({ items }: NewOrder) => items.length, max: 500 } };
/** `size` is the number of lists that products reads in parallel. Each page may have 256 KiB, and a batch's pages arrive in one message. */
const PAGES = { size: 2, inFlight: 2, places: 256, patienceMs: PATIENCE_MS };
/** Searches are slower, and products runs two at a time. They are batched apart, so lists without a search don't wait for them. */
const SEARCHES = { size: 1, inFlight: 2, places: 64, patienceMs: PATIENCE_MS };

type List = Params<typeof products.list>;
type NewOrder = Params<typeof orders.createMany>["orders"][number];
type Wanted = Params<typeof orders.getMany>["orders"][number];

/** @param slow the addresses whose lists and searches were slow */
export function batchedCalls(broker: ServiceBroker, slow = new SlowAddresses()): BatchedCalls {
  const order = batch<Wanted, orders.Order>(
    async (wanted, waitedMs) =>
      (await call(broker, orders.getMany, { orders: [...wanted] }, retryOptions(waitedMs))).map(
        (found) => found ?? problem("ORDER_NOT_FOUND", "there is no such order"),
      ),
    { patienceMs: PATIENCE_MS, size: ORDERS_PER_READ, allowPartialResults: true },
  );
  const createAll = async (placed: readonly NewOrder[], waitedMs: number) =>
    (await call(broker, orders.createMany, { orders: [...placed] }, retryOptions(waitedMs))).map((made) =>
      "error" in made ? itemError(made) : made,
    );
  const create = batch<NewOrder, orders.Created>(createAll, { ...CREATES, ...SMALL_CREATES });
  const createLarge = batch<NewOrder, orders.Created>(createAll, { ...CREATES, ...LARGE_CREATES });
  const readLists = async (lists: readonly List[], waitedMs: number) =>
    (await call(broker, products.listMany, { lists: [...lists] }, retryOptions(waitedMs))).map((page) =>
      "error" in page ? itemError(page) : page,
    );
  const keyOf = (list: List): string => JSON.stringify(list);
  const pages = batch<List, Result<typeof products.list>>(readLists, { ...PAGES, keyOf, slow });
  const searches = batch<List, Result<typeof products.list>>(readLists, { ...SEARCHES, keyOf, slow });
  return {
    product: batch<string, products.Product>(
      async (ids, waitedMs) =>
        (await call(broker, products.getMany, { ids: [...ids] }, retryOptions(waitedMs))).map(
          (found) => found ?? problem("PRODUCT_NOT_FOUND", "there is no such product"),
        ),
      { patienceMs: PATIENCE_MS },
    ),
    products: (list, requester) => (list.q === undefined ? pages : searches)(list, requester),
    order: (id, { id: user_id, role }, requester) => order({ id, user_id, role }, requester),
    createOrder: (wanted, { id: user_id }, requester) => {
      const request_id = currentRequestId();
      const order = { idempotency_key: randomUUID(), ...wanted, user_id, ...(request_id !== undefined && { request_id }) };
      return (wanted.items.length > orders.SMALL_ORDER_LINES ? createLarge : create)(order, requester);
    },
  };
}
