import { tooLate } from "../broker/errors";
import { currentDeadline, withRequest } from "../broker/request";
import { MAX_BATCH } from "../contracts/contract";
import { FairQueue, type Client } from "./fair-queue";

/** Whom an item is for, and whether they still wait for it. */
export interface Requester extends Client {
  isWanted(): boolean;
}

export interface BatchOptions<Item> {
  /** Most items in one batch. */
  size?: number;
  /** Most weight in one batch, where items weigh differently, beside those that are in it; a heavier item goes alone. */
  weight?: { readonly of: (item: Item, others: readonly Item[]) => number; readonly max: number };
  /** Most batches in flight at one time: what comes meanwhile waits for the next. */
  inFlight?: number;
  /** Most items that wait. */
  places?: number;
  /** Milliseconds that an item may wait: one that has waited longer is refused when its turn comes. */
  patienceMs?: number;
  /** Whether an error may be the fault of one item: then each item is retried individually, which must be harmless. */
  mayBeOfOne?: (error: unknown) => boolean;
  /** Items that are retried individually run in parallel: for work that may wait for another's lock. */
  inParallel?: boolean;
}

type Work<Item, Result> = (items: readonly Item[], waitedMs: number) => Promise<readonly (Result | Error)[]>;

interface Waiting<Item, Result> {
  readonly item: Item;
  readonly requester: Requester | undefined;
  /** When it came, and when its request's time is over. */
  readonly since: number;
  readonly deadline: number;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: unknown) => void;
}

/** Work that the shop does for itself has no client whose share it could exceed. */
const SHOP: Client = { address: "", user: undefined };

/**
 * Batches calls: items that wait at the same moment become one call of `work`, which gives each, in their order, a result or
 * an error of its own. The cost of an item falls as load rises, and nothing is cached, so nothing goes stale. No timer: a
 * lone item starts as soon as what the same sockets brought has been read (`setImmediate`).
 *
 * Items of clients take turns (FairQueue). What nobody waits for any more, since its client has gone or its request's deadline
 * is over, is left out.
 * @param work is also given the milliseconds that its first item has waited
 * @returns a function that adds an item. It throws SERVICE_UNAVAILABLE where too much is waiting, or it waited for too long, and
 * TOO_MANY_REQUESTS where the requester's address holds its share of the places
 */
export function batch<Item, Result>(
  work: Work<Item, Result>,
  {
    size = MAX_BATCH,
    weight,
    inFlight = 2,
    places = 1_024,
    patienceMs = Infinity,
    mayBeOfOne = () => false,
    inParallel = false,
  }: BatchOptions<Item> = {},
): (item: Item, requester?: Requester) => Promise<Result> {
  const queue = new FairQueue<Waiting<Item, Result>>(places);
  let running = 0;
  let isScheduled = false;
  /** What had its turn and was too heavy: it goes first into the next batch. */
  let aside: Waiting<Item, Result>[] = [];

  /** The next one that is still wanted. */
  const next = (now: number): Waiting<Item, Result> | undefined => {
    for (let waiting = aside.shift() ?? queue.take(); waiting !== undefined; waiting = aside.shift() ?? queue.take()) {
      const { since, deadline, requester } = waiting;
      if (now <= since + patienceMs && now < deadline && (requester?.isWanted() ?? true)) return waiting;
      waiting.reject(tooLate());
    }
    return undefined;
  };

  /** Of the first `size` that wait: once one is too heavy, only what weighs nothing beside the others is still taken. */
  const compose = (): Waiting<Item, Result>[] => {
    const now = performance.now();
    const batched: Waiting<Item, Result>[] = [];
    const items: Item[] = [];
    const tooHeavy: Waiting<Item, Result>[] = [];
    let weighs = 0;
    while (batched.length + tooHeavy.length < size) {
      const waiting = next(now);
      if (waiting === undefined) break;
      const more = weight?.of(waiting.item, items) ?? 0;
      if (weight !== undefined && more > 0 && items.length > 0 && (tooHeavy.length > 0 || weighs + more > weight.max)) {
        tooHeavy.push(waiting);
        continue;
      }
      weighs += more;
      batched.push(waiting);
      items.push(waiting.item);
    }
    aside = [...tooHeavy, ...aside];
    return batched;
  };

  const start = (): void => {
    isScheduled = false;
    while (running < inFlight) {
      const batched = compose();
      if (batched.length === 0) return;
      running++;
      void perform(batched).finally(() => {
        running--;
        start();
      });
    }
  };

  const perform = async (batched: readonly Waiting<Item, Result>[]): Promise<void> => {
    const items = batched.map(({ item }) => item);
    const now = performance.now();
    const waitedMs = now - Math.min(...batched.map(({ since }) => since));
    // It works for all of them, and as long as one of them waits.
    const deadline = Math.max(...batched.map((waiting) => waiting.deadline));
    const results = await withRequest(undefined, deadline, () => resultsOf(items, waitedMs));
    batched.forEach(({ resolve, reject }, i) => {
      const result = results[i];
      if (result instanceof Error) reject(result);
      else resolve(result as Result); // there are as many as items
    });
  };

  const resultsOf = async (items: readonly Item[], waitedMs: number): Promise<readonly (Result | Error)[]> => {
    try {
      const results = await work(items, waitedMs);
      if (results.length !== items.length) throw new Error(`a batch of ${items.length} gave ${results.length} results`);
      return results;
    } catch (error) {
      if (!mayBeOfOne(error)) return items.map(() => toError(error));
      const alone = (item: Item): Promise<readonly (Result | Error)[]> => work([item], waitedMs).catch((e: unknown) => [toError(e)]);
      if (inParallel) return (await Promise.all(items.map(alone))).flat();
      const results: (Result | Error)[] = [];
      for (const item of items) results.push(...(await alone(item)));
      return results;
    }
  };

  return (item, requester) =>
    new Promise((resolve, reject) => {
      const waiting = { item, requester, since: performance.now(), deadline: currentDeadline(), resolve, reject };
      if (requester === undefined) queue.force(SHOP, waiting);
      else queue.add(requester, waiting);
      if (isScheduled || running >= inFlight) return;
      isScheduled = true;
      setImmediate(start);
    });
}

const toError = (error: unknown): Error => (error instanceof Error ? error : new Error(String(error)));
