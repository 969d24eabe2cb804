import { randomUUID } from "node:crypto";
import type { Service } from "moleculer";
import { call } from "../../broker/contract";
import { isUnavailable, problem } from "../../broker/errors";
import { logFailure } from "../../broker/logger";
import { currentRequestId } from "../../broker/request";
import { LINES_PER_CALL, orderCreated, SMALL_ORDER_LINES, type Created } from "../../contracts/orders";
import { quote, QUOTES_PER_CALL, type Quote } from "../../contracts/products";
import { batch, type BatchOptions } from "../../mixins/batching";
import { explained, type WithDatabase } from "../../mixins/database.mixin";
import type { WithOutbox } from "../../mixins/outbox.mixin";
import { isKeyLockTimeout, shouldRetryIndividually } from "../../mixins/sql-state";
import { insertOrders, type Draft, type OrderKey } from "./insert.store";
import { describeShortages, hashRequest, mergeLines, place, type Content, type Refusal } from "./order";
import { findByKeys, type Keyed } from "./read.store";
import { present, presentAsCreated, type OrderRow } from "./row";

/** An order that a user requests. */
interface OrderRequest extends Content {
  user_id: string;
  idempotency_key?: string;
}

/**
 * Milliseconds that a retry waits for the first request with its key to finish. Two such waits stay within the promised 2 s, which leaves
 * `create` time to respond.
 */
export const KEY_WAIT_MS = 950;

/** Places orders, from request to response. It is written for one order; concurrent orders are batched. */
export class Placing {
  constructor(private readonly service: Service & WithDatabase & WithOutbox) {}

  /**
   * @returns the order, or the one that was placed by the first request with this key
   * @throws PRODUCT_NOT_FOUND, INSUFFICIENT_STOCK, IDEMPOTENCY_KEY_REUSED, IDEMPOTENCY_IN_FLIGHT, SERVICE_UNAVAILABLE
   */
  async place({ user_id, idempotency_key = randomUUID(), ...content }: OrderRequest): Promise<Created> {
    const wanted = mergeLines(content.items);
    const key: OrderKey = { user_id, idempotency_key, request_hash: hashRequest({ ...content, items: wanted }) };
    let refusal: unknown;
    try {
      const { quote, insert } = wanted.length > SMALL_ORDER_LINES ? this.large : this.small;
      const placement = place(wanted, await quote(wanted.map((line) => line.product_id)));
      if (!placement.ok) throw refused(placement.refusal);
      const order = await insert({ ...key, lines: placement.lines, total_cents: placement.total_cents });
      if (order !== undefined) return { order: present(order), replayed: false };
    } catch (error) {
      refusal = isKeyLockTimeout(error)
        ? problem("IDEMPOTENCY_IN_FLIGHT", "the first request with this key is still in progress")
        : explained(error);
    }
    // If the key was used before, or meanwhile by a concurrent request, return that order: a retry never turns into 404, 409 or 503.
    const first = await this.findReplay(key).catch((error: unknown) => {
      logFailure(this.service.logger, "an order", refusal, currentRequestId()); // nothing else would log it
      throw error;
    });
    if (first !== undefined) return first;
    throw refusal instanceof Error ? refusal : new Error("the idempotency key exists, but its order was not found");
  }

  /** Small orders are batched apart from large ones, so that they don't wait for these. */
  private readonly small = this.batches({});
  private readonly large = this.batches({ inFlight: 1 });

  private batches(options: Pick<BatchOptions<unknown>, "inFlight">) {
    return {
      /** Names, prices and stock of products; unknown ones are missing. */
      quote: batch<string[], Quote[]>(
        async (wanted) => {
          const quotes = await call(this.service.broker, quote, { ids: [...new Set(wanted.flat())] }).catch((error: unknown) => {
            throw isUnavailable(error) ? problem("SERVICE_UNAVAILABLE", "the catalogue is unavailable", { cause: error }) : error;
          });
          const byId = new Map(quotes.map((one) => [one.id, one]));
          return wanted.map((ids) => ids.flatMap((id) => byId.get(id) ?? []));
        },
        { ...options, weight: { of: (ids) => ids.length, max: QUOTES_PER_CALL } },
      ),

      /** Inserts an order with its outbox row, and publishes that. @returns undefined if the key is taken */
      insert: batch<Draft, OrderRow | undefined>(
        async (drafts) => {
          const { orders, claimed } = await insertOrders(this.service.db, drafts, this.service.inFlightCap(orderCreated));
          this.service.publish(claimed);
          if (claimed.length < orders.length) this.service.relay();
          return orders;
        },
        {
          ...options,
          shouldRetryIndividually: shouldRetryKeysIndividually,
          inParallel: true,
          weight: { of: ({ lines }) => lines.length, max: LINES_PER_CALL },
        },
      ),
    };
  }

  /** The response to the first request with a key; undefined if there was none. */
  private async findReplay(key: OrderKey): Promise<Created | undefined> {
    const found = await this.findByKey(key).catch((error: unknown) => {
      throw explained(error);
    });
    if (found === undefined) return undefined;
    if (found.order === undefined) throw problem("IDEMPOTENCY_KEY_REUSED", "this key was used before with a different body");
    return { order: presentAsCreated(found.order), replayed: true };
  }

  private readonly findByKey = batch<OrderKey, Keyed | undefined>((keys) => findByKeys(this.service.db, keys));
}

function refused(refusal: Refusal) {
  switch (refusal.kind) {
    case "unknown":
      return problem("PRODUCT_NOT_FOUND", `there is no product ${refusal.product_ids.join(", ")}`);
    case "short":
      return problem("INSUFFICIENT_STOCK", describeShortages(refusal.shortages), { shortages: refusal.shortages });
  }
}

/**
 * A key whose first request is in progress elsewhere makes the whole batch wait. Retried individually and in parallel, the other orders don't
 * wait again; they would if a whole table were locked.
 */
function shouldRetryKeysIndividually(error: unknown): boolean {
  return isKeyLockTimeout(error) || shouldRetryIndividually(error);
}
