import type { Static, TSchema } from "@sinclair/typebox";
import type { ServiceBroker } from "moleculer";
import { emit } from "../../broker/contract";
import { check, matches } from "../../broker/validator";
import type { EventContract } from "../../contracts/contract";
import { stockRefused, stockSettled, type Outcome, type Refusal } from "../../contracts/products";
import { isDatabaseAway } from "../../mixins/sql-state";

interface Asked {
  order_id: number;
}

/**
 * Works on the orders of one event together and answers each: with its outcome, or with a refusal and its reason.
 * While the database is away nothing is said: silence means "ask again", a refusal counts towards parking.
 * @param schema one order of the event; those that break it are refused for good, and hold up no other
 */
export async function answer<S extends TSchema>(
  broker: ServiceBroker,
  event: EventContract,
  schema: S,
  asked: readonly Asked[],
  work: (orders: (Static<S> & Asked)[]) => Promise<Outcome[]>,
): Promise<void> {
  const sound = asked.filter((order): order is Static<S> & Asked => matches(schema, order));
  const broken = asked.filter((order) => !matches(schema, order)).map((order) => refusal(event, order, describe(schema, order), true));
  const { outcomes, refusals } = sound.length > 0 ? await settle(event, sound, work) : { outcomes: [], refusals: [] };

  for (const { order_id, message } of [...broken, ...refusals])
    broker.logger.warn(`${event.name} of order ${order_id} is refused: ${message}`);
  if (outcomes.length > 0) await emit(broker, stockSettled, { orders: outcomes });
  if (broken.length + refusals.length > 0) await emit(broker, stockRefused, { orders: [...broken, ...refusals] });
}

async function settle<T extends Asked>(
  event: EventContract,
  orders: T[],
  work: (orders: T[]) => Promise<Outcome[]>,
): Promise<{ outcomes: Outcome[]; refusals: Refusal[] }> {
  try {
    return { outcomes: await work(orders), refusals: [] };
  } catch (error) {
    if (isDatabaseAway(error)) throw error;
    const [only, ...others] = orders;
    if (only === undefined || others.length === 0) {
      return {
        outcomes: [],
        refusals: orders.map((order) => refusal(event, order, error instanceof Error ? error.message : String(error), false)),
      };
    }
    // One of them is bad: each by itself, which a repeat makes harmless.
    const parts = [];
    for (const order of orders) parts.push(await settle(event, [order], work));
    return { outcomes: parts.flatMap((part) => part.outcomes), refusals: parts.flatMap((part) => part.refusals) };
  }
}

const refusal = (event: EventContract, { order_id }: Asked, message: string, permanent: boolean): Refusal => ({
  order_id,
  event: event.name,
  message,
  permanent,
});

const describe = (schema: TSchema, order: unknown): string =>
  check(schema, order)
    .map(({ field, message }) => `${field} ${message}`)
    .join("; ");
