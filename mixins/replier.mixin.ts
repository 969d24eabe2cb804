import type { Static, TSchema } from "@sinclair/typebox";
import type { ServiceBroker, ServiceSchema } from "moleculer";
import { FAIR, subscribe } from "../broker/contract";
import { errorCode, isUnavailable } from "../broker/errors";
import { check, matches } from "../broker/validator";
import type { EventContract, OutboxedEvent } from "../contracts/contract";
import { batch } from "./batching";
import type { Database, Query } from "./database";
import { isRefusal } from "./sql-state";

/** The events with which a replier replies. Both have the same list as the event that they reply to. */
interface Replies {
  /** Outcomes, one for each item that was processed. */
  readonly settled: EventContract;
  /** Items that could not be processed: `Refused`, with the subject's id in the subject's field. */
  readonly refused: EventContract;
}

/** Why an item was refused. The sender's outbox counts refusals, and parks the row after ten or if one is permanent. */
interface Refused {
  event: string;
  /** A retry can't help: the item breaks its contract. */
  permanent: boolean;
  message: string;
}

/** An item whose subject is known, and nothing else. */
type Item = Readonly<Record<string, unknown>>;

/**
 * The replier of a transactional outbox (outbox.mixin.ts) for one event: replies to each item with its outcome, or with a refusal and the
 * reason. While the database is unavailable or a queue is full it sends no reply: without one the event is republished, whereas a refusal
 * counts towards parking. Safe on any number of nodes in parallel.
 * @param process processes one item, together with others that arrive at the same moment if it is batched, and must store the outcome: an item
 * that is redelivered gets the same one (`processOnce`). Its errors concern that item only.
 */
export function replierMixin<I extends TSchema, This extends { broker: ServiceBroker }>(
  event: OutboxedEvent<string, I>,
  replies: Replies,
  process: (this: This, item: Static<I>) => Promise<object>,
): Partial<ServiceSchema> {
  const listener = subscribe(
    event,
    async function (this: This, ctx) {
      await replyToEach(this.broker, event, replies, itemsOf(event, ctx.params), (item) => process.call(this, item));
    },
    FAIR,
  );
  return { events: { [event.name]: listener } };
}

/** @throws the reason why an item got no reply, after all other replies have been sent */
export async function replyToEach<I extends TSchema>(
  broker: ServiceBroker,
  event: OutboxedEvent<string, I>,
  replies: Replies,
  items: readonly Item[],
  process: (item: Static<I>) => Promise<object>,
): Promise<void> {
  // One message for the outcomes of one transaction: an item does not wait for all the others of its event.
  const settle = batch<{ subject: unknown; outcome: object }, undefined>(
    async (settled) => {
      const outcomes = new Map(settled.map(({ subject, outcome }) => [subject, outcome]));
      await broker.emit(replies.settled.name, { [event.list]: [...outcomes.values()] });
      return settled.map(() => undefined);
    },
    { inFlight: Infinity },
  );
  const refusals: (Refused & Item)[] = [];
  const refuse = (item: Item, message: string, permanent: boolean): void => {
    const subject = item[event.subject];
    broker.logger.warn(`${event.name} of ${String(subject)} is refused: ${message}`);
    refusals.push({ [event.subject]: subject, event: event.name, message: message.slice(0, MAX_REASON_CHARS), permanent });
  };
  let unrepliedReason: Error | undefined;
  const one = async (item: Item): Promise<void> => {
    if (!matches(event.item, item)) {
      refuse(item, describe(event.item, item), true);
      return;
    }
    let outcome: object;
    try {
      outcome = await process(item);
    } catch (error) {
      const reason = error instanceof Error ? error : new Error(String(error));
      if (!isRefusal(reason) || isUnavailable(reason) || errorCode(reason) === "TOO_MANY_REQUESTS") unrepliedReason = reason;
      else refuse(item, reason.message, false);
      return;
    }
    await settle({ subject: item[event.subject], outcome });
  };
  await Promise.all(items.map(one));

  if (refusals.length > 0) await broker.emit(replies.refused.name, { [event.list]: refusals });
  if (unrepliedReason !== undefined) throw unrepliedReason;
}

/** Maximum characters of a reason in a reply: the outbox stores no more. */
const MAX_REASON_CHARS = 500;

const describe = (schema: TSchema, item: unknown): string =>
  check(schema, item)
    .map(({ field, message }) => `${field} ${message}`)
    .join("; ");

/** The items of a validated payload. */
function itemsOf({ list }: OutboxedEvent, payload: unknown): Item[] {
  const items = typeof payload === "object" && payload !== null ? (payload as Item)[list] : undefined;
  return Array.isArray(items) ? items.filter((item): item is Item => typeof item === "object" && item !== null) : [];
}

/** Where a replier stores which items it has processed, with their outcomes. */
export interface Inbox<T, O> {
  readonly subjectOf: (item: T) => string;
  /** Inserts the items that are not in it, sorted by subject, so that two batches with the same items can't deadlock. @returns their subjects */
  readonly insert: (query: Query, items: readonly T[]) => Promise<ReadonlySet<string>>;
  /** The stored outcomes of these subjects. */
  readonly read: (query: Query, subjects: readonly string[]) => Promise<O[]>;
}

/**
 * Processes each item once, in one transaction: an item that was processed before gets its stored outcome.
 * @param items of which several may have the same subject
 * @param work processes new items, and stores their outcomes if they differ from what `insert` has written
 */
export function processOnce<T, O>(
  db: Database,
  { subjectOf, insert, read }: Inbox<T, O>,
  items: readonly T[],
  work: (query: Query, fresh: readonly T[]) => Promise<O[]>,
): Promise<O[]> {
  const requested = new Map(items.map((item) => [subjectOf(item), item]));
  return db.transaction(async (query) => {
    // Inserting and reading are two statements: a single one could not see a row that was committed after it began.
    const inserted = await insert(query, [...requested.values()]);
    const known = [...requested.keys()].filter((subject) => !inserted.has(subject));
    const stored = known.length === 0 ? [] : await read(query, known);
    const fresh = [...requested].flatMap(([subject, item]) => (inserted.has(subject) ? item : []));
    return fresh.length === 0 ? stored : [...stored, ...(await work(query, fresh))];
  });
}
