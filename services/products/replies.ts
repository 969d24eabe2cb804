import type { Static, TSchema } from "@sinclair/typebox";
import type { ServiceBroker } from "moleculer";
import { emit } from "../../broker/contract";
import { errorCode, isUnreachable } from "../../broker/errors";
import { check, matches } from "../../broker/validator";
import type { EventContract } from "../../contracts/contract";
import { stockRefused, stockSettled, type Outcome, type Refusal } from "../../contracts/products";
import { batch } from "../../mixins/batching";
import { isRefusal } from "../../mixins/sql-state";

interface Identified {
  order_id: string;
}

/**
 * Replies to each order of an event: with its outcome, or with a refusal and the reason. While the database is unavailable or a queue is
 * full, it sends no reply: without one the event is republished, whereas a refusal counts towards parking.
 * @param schema of one order of the event; an order that breaks it is refused permanently
 * @param work processes one order, batched with others that arrive at the same moment; its errors concern that order only
 * @throws the reason why an order got no reply, after all other replies have been sent
 */
export async function replyToEach<S extends TSchema>(
  broker: ServiceBroker,
  event: EventContract,
  schema: S,
  orders: readonly Identified[],
  work: (order: Static<S> & Identified) => Promise<Outcome>,
): Promise<void> {
  // One message for the outcomes of one transaction: an order does not wait for all the others of its event.
  const reply = batch<Outcome, undefined>(
    async (outcomes) => {
      await emit(broker, stockSettled, { orders: [...new Map(outcomes.map((outcome) => [outcome.order_id, outcome])).values()] });
      return outcomes.map(() => undefined);
    },
    { inFlight: Infinity },
  );
  const refusals: Refusal[] = [];
  let silence: Error | undefined;
  const one = async (order: Identified): Promise<void> => {
    if (!matches(schema, order)) {
      refusals.push(refusal(event, order, describe(schema, order), true));
      return;
    }
    let outcome: Outcome;
    try {
      outcome = await work(order);
    } catch (error) {
      const reason = error instanceof Error ? error : new Error(String(error));
      if (!isRefusal(reason) || isUnreachable(reason) || errorCode(reason) === "TOO_MANY_REQUESTS") silence = reason;
      else refusals.push(refusal(event, order, reason.message, false));
      return;
    }
    await reply(outcome);
  };
  await Promise.all(orders.map(one));

  for (const { order_id, message } of refusals) broker.logger.warn(`${event.name} of order ${order_id} is refused: ${message}`);
  if (refusals.length > 0) await emit(broker, stockRefused, { orders: refusals });
  if (silence !== undefined) throw silence;
}

/** Most characters of a reason in a reply: orders stores no more. */
const MAX_REASON = 500;

const refusal = (event: EventContract, { order_id }: Identified, message: string, permanent: boolean): Refusal => ({
  order_id,
  event: event.name,
  message: message.slice(0, MAX_REASON),
  permanent,
});

const describe = (schema: TSchema, order: unknown): string =>
  check(schema, order)
    .map(({ field, message }) => `${field} ${message}`)
    .join("; ");
