import { tooLate } from "../broker/errors";
import { currentDeadline, withRequest } from "../broker/request";
import { MAX_BATCH } from "../contracts/contract";
import { FairQueue, InProgress, type Client, type SlowAddresses } from "./fair-queue";

/** The client that an item is for, and whether the item is still wanted. */
export interface Requester extends Client {
  isWanted(): boolean;
}

export interface BatchOptions<Item> {
  /** Maximum number of items in one batch. */
  size?: number;
  /** Maximum weight of one batch, if items differ in weight; a heavier item gets a batch of its own. */
  weight?: { readonly of: (item: Item) => number; readonly max: number };
  /** Pending items with the same key share one place in a batch, and its result. */
  keyOf?: (item: Item) => string;
  /** Maximum number of batches in flight; items that arrive meanwhile wait for the next. */
  inFlight?: number;
  /** Maximum number of pending items. */
  places?: number;
  /** If given, the items of these addresses get batches of their own, one at a time. Learns from this work. */
  slow?: SlowAddresses;
  /** Milliseconds that an item may wait; one that has waited longer is refused when its turn comes. */
  patienceMs?: number;
  /** Whether an error may be due to a single item. If so, each item is retried individually, which must be harmless. */
  shouldRetryIndividually?: (error: unknown) => boolean;
  /** Retries individual items in parallel: for work that may wait for a lock. */
  inParallel?: boolean;
  /** Work may return the results of the first items only, at least one. They are passed on at once, and work is called again for the others. */
  allowPartialResults?: boolean;
}

type Work<Item, Result> = (items: readonly Item[], waitedMs: number) => Promise<readonly (Result | Error)[]>;

interface Waiting<Item, Result> {
  readonly item: Item;
  readonly key: string | undefined;
  readonly requester: Requester | undefined;
  /** When it was added, and its request's deadline; both by `performance.now()`. */
  readonly since: number;
  readonly deadline: number;
  /** It is in a batch already, with another item of the same key. */
  isTaken: boolean;
  /** The index of its item in its batch. */
  place: number;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: unknown) => void;
}

interface Batch<Item, Result> {
  readonly items: readonly Item[];
  /** The callers that wait for them. */
  readonly waiting: readonly Waiting<Item, Result>[];
}

/** For the shop's own work, which has no client and so no share to exceed. */
const SHOP: Client = { address: "", user: undefined };

/**
 * Batches calls: items that are pending at the same moment become one call of `work`, which returns for each, in the same order, its own
 * result or error. The cost per item falls as load rises, and nothing is cached, so nothing goes stale. There is no timer: a lone item
 * starts as soon as the data that arrived on the sockets at the same time has been read (`setImmediate`).
 *
 * Clients take turns (FairQueue). Items whose client has disconnected or whose deadline has passed are skipped.
 * @param work also gets the milliseconds that its oldest item has waited
 * @returns a function that adds an item. It throws SERVICE_UNAVAILABLE if all places are taken or the item waited too long, and
 * TOO_MANY_REQUESTS if the requester's address or user holds its share of the places
 */
export function batch<Item, Result>(
  work: Work<Item, Result>,
  {
    size = MAX_BATCH,
    weight,
    keyOf,
    inFlight = 2,
    places = 1_024,
    slow,
    patienceMs = Infinity,
    shouldRetryIndividually = () => false,
    inParallel = false,
    allowPartialResults = false,
  }: BatchOptions<Item> = {},
): (item: Item, requester?: Requester) => Promise<Result> {
  const queue = new FairQueue<Waiting<Item, Result>>(places);
  const byKey = new Map<string, Waiting<Item, Result>[]>();
  const inProgress = slow && new InProgress(slow);
  let running = 0;
  let isScheduled = false;

  const addressOf = ({ requester }: Waiting<Item, Result>): string => (requester ?? SHOP).address;

  const isLate = ({ since, deadline, requester }: Waiting<Item, Result>, now: number): boolean =>
    now > since + patienceMs || now >= deadline || requester?.isWanted() === false;

  /** All pending items with the same key. */
  const equalsOf = (first: Waiting<Item, Result>): readonly Waiting<Item, Result>[] => {
    if (first.key === undefined) return [first];
    const equals = byKey.get(first.key) ?? [];
    byKey.delete(first.key);
    return equals;
  };

  /** Takes items in turn. One too heavy for the rest of the batch keeps its turn for the next; items of other users may still fit. */
  const compose = (): Batch<Item, Result> => {
    const now = performance.now();
    const items: Item[] = [];
    const waiting: Waiting<Item, Result>[] = [];
    let weighs = 0;
    const fits = (one: Waiting<Item, Result>): boolean => {
      if (one.isTaken || isLate(one, now)) return true;
      const address = addressOf(one);
      if (inProgress?.mustWait(address, now) === true || (items.length > 0 && inProgress?.isApart(address, now) === true)) return false;
      const more = weight?.of(one.item) ?? 0;
      if (more > 0 && weighs > 0 && weighs + more > (weight?.max ?? Infinity)) return false;
      weighs += more;
      return true;
    };
    while (items.length < size) {
      const first = queue.take(fits);
      if (first === undefined) break;
      if (first.isTaken) continue; // with another item of the same key
      const before = waiting.length;
      for (const one of equalsOf(first)) {
        one.isTaken = true;
        one.place = items.length;
        if (isLate(one, now)) one.reject(tooLate());
        else waiting.push(one);
      }
      if (waiting.length === before) continue;
      items.push(first.item);
      if (inProgress?.isApart(addressOf(first), now) === true) break;
    }
    return { items, waiting };
  };

  const start = (): void => {
    isScheduled = false;
    while (running < inFlight) {
      const batched = compose();
      if (batched.items.length === 0) return;
      running++;
      const addresses = new Set(slow && batched.waiting.map(addressOf));
      inProgress?.begin(addresses);
      const startedAt = performance.now();
      void perform(batched).finally(() => {
        const now = performance.now();
        inProgress?.end(addresses, now - startedAt, now, batched.items.length === 1);
        running--;
        start();
      });
    }
  };

  const perform = async ({ items, waiting }: Batch<Item, Result>): Promise<void> => {
    const waitedMs = performance.now() - Math.min(...waiting.map(({ since }) => since));
    // The batch serves all its callers, so it may run until the last of their deadlines.
    const deadline = Math.max(...waiting.map((one) => one.deadline));
    const results = await withRequest(undefined, deadline, () => resultsOf(items, waitedMs));
    const others: Waiting<Item, Result>[] = [];
    for (const one of waiting) {
      const result = results[one.place];
      if (one.place >= results.length) {
        one.place -= results.length;
        others.push(one);
      } else if (result instanceof Error) one.reject(result);
      else one.resolve(result as Result); // there is one per item
    }
    if (others.length > 0) await perform({ items: items.slice(results.length), waiting: others });
  };

  const resultsOf = async (items: readonly Item[], waitedMs: number): Promise<readonly (Result | Error)[]> => {
    try {
      const results = await work(items, waitedMs);
      const isAllowed = results.length === items.length || (allowPartialResults && results.length > 0 && results.length < items.length);
      if (!isAllowed) throw new Error(`a batch of ${items.length} returned ${results.length} results`);
      return results;
    } catch (error) {
      if (!shouldRetryIndividually(error)) return items.map(() => toError(error));
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
