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
  /** Most weight in one batch, where items weigh differently; a heavier item goes alone. */
  weight?: { readonly of: (item: Item) => number; readonly max: number };
  /** Items of the same key that wait at the same moment share one place in a batch, and its result. */
  keyOf?: (item: Item) => string;
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
  readonly key: string | undefined;
  readonly requester: Requester | undefined;
  /** When it came, and when its request's time is over. */
  readonly since: number;
  readonly deadline: number;
  /** It is in a batch already, where that was another one's turn. */
  isTaken: boolean;
  /** Of its item in its batch. */
  place: number;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: unknown) => void;
}

interface Batch<Item, Result> {
  readonly items: readonly Item[];
  /** Who waits for them. */
  readonly waiting: readonly Waiting<Item, Result>[];
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
    keyOf,
    inFlight = 2,
    places = 1_024,
    patienceMs = Infinity,
    mayBeOfOne = () => false,
    inParallel = false,
  }: BatchOptions<Item> = {},
): (item: Item, requester?: Requester) => Promise<Result> {
  const queue = new FairQueue<Waiting<Item, Result>>(places);
  const byKey = new Map<string, Waiting<Item, Result>[]>();
  let running = 0;
  let isScheduled = false;

  const isLate = ({ since, deadline, requester }: Waiting<Item, Result>, now: number): boolean =>
    now > since + patienceMs || now >= deadline || requester?.isWanted() === false;

  /** Those that wait for the same. */
  const equalsOf = (first: Waiting<Item, Result>): readonly Waiting<Item, Result>[] => {
    if (first.key === undefined) return [first];
    const equals = byKey.get(first.key) ?? [];
    byKey.delete(first.key);
    return equals;
  };

  /** In turn. What is too heavy beside the others keeps its turn for the next batch, and what other users have waiting may still fit. */
  const compose = (): Batch<Item, Result> => {
    const now = performance.now();
    const items: Item[] = [];
    const waiting: Waiting<Item, Result>[] = [];
    let weighs = 0;
    const fits =
      weight &&
      ((one: Waiting<Item, Result>): boolean => {
        const more = isLate(one, now) ? 0 : weight.of(one.item);
        if (more > 0 && weighs > 0 && weighs + more > weight.max) return false;
        weighs += more;
        return true;
      });
    while (items.length < size) {
      const first = queue.take(fits);
      if (first === undefined) break;
      if (first.isTaken) continue; // with one that waited for the same
      const before = waiting.length;
      for (const one of equalsOf(first)) {
        one.isTaken = true;
        one.place = items.length;
        if (isLate(one, now)) one.reject(tooLate());
        else waiting.push(one);
      }
      if (waiting.length > before) items.push(first.item);
    }
    return { items, waiting };
  };

  const start = (): void => {
    isScheduled = false;
    while (running < inFlight) {
      const batched = compose();
      if (batched.items.length === 0) return;
      running++;
      void perform(batched).finally(() => {
        running--;
        start();
      });
    }
  };

  const perform = async ({ items, waiting }: Batch<Item, Result>): Promise<void> => {
    const waitedMs = performance.now() - Math.min(...waiting.map(({ since }) => since));
    // It works for all of them, and as long as one of them waits.
    const deadline = Math.max(...waiting.map((one) => one.deadline));
    const results = await withRequest(undefined, deadline, () => resultsOf(items, waitedMs));
    for (const { place, resolve, reject } of waiting) {
      const result = results[place];
      if (result instanceof Error) reject(result);
      else resolve(result as Result); // there are as many as items
    }
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
      const waiting: Waiting<Item, Result> = {
        item,
        key: keyOf?.(item),
        requester,
        since: performance.now(),
        deadline: currentDeadline(),
        isTaken: false,
        place: 0,
        resolve,
        reject,
      };
      if (requester === undefined) queue.force(SHOP, waiting);
      else queue.add(requester, waiting);
      if (waiting.key !== undefined) {
        const equals = byKey.get(waiting.key);
        if (equals === undefined) byKey.set(waiting.key, [waiting]);
        else equals.push(waiting);
      }
      if (isScheduled || running >= inFlight) return;
      isScheduled = true;
      setImmediate(start);
    });
}

const toError = (error: unknown): Error => (error instanceof Error ? error : new Error(String(error)));
