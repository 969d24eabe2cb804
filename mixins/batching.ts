import DataLoader from "dataloader";
import { problem } from "../broker/errors";
import { MAX_BATCH } from "../contracts/contract";

export interface BatchOptions {
  /** Most items in one batch. */
  size?: number;
  /** Most batches at work at one time: what comes meanwhile gathers. */
  underWay?: number;
  /** Most items that are waiting or at work; one more is refused at once. */
  queue?: number;
  /** Milliseconds that an item may wait for its turn: one that has waited longer is refused when that comes. */
  patience?: number;
  /** Whether an error may be one item's alone: then each is done once more by itself, which must be harmless. */
  mayBeOnes?: (error: unknown) => boolean;
  /** Those that are done by themselves run side by side: for work that may wait for another's lock. */
  sideBySide?: boolean;
}

/**
 * Work that arrives together travels together: gathers the items that wait at the same moment into one call of `work`,
 * which answers each, in their order, with a result or an error of its own. The cost of an item falls as load rises,
 * and nothing is remembered, so nothing goes stale. No timer: a lone item starts as soon as what the same sockets brought
 * has been read (`setImmediate`; dataloader's own schedule would never gather anything from sockets).
 * @param work hears, too, how many milliseconds the first of its items has waited
 * @throws SERVICE_UNAVAILABLE at once where too much is waiting
 */
export function batch<Item, Result>(
  work: (items: readonly Item[], waited: number) => Promise<readonly (Result | Error)[]>,
  { size = MAX_BATCH, underWay = 2, queue = 1_024, patience = Infinity, mayBeOnes = () => false, sideBySide = false }: BatchOptions = {},
): (item: Item) => Promise<Result> {
  let waiting = 0;
  let running = 0;
  const ready: (() => void)[] = [];

  const startNext = (): void => {
    while (running < underWay) {
      const start = ready.shift();
      if (start === undefined) return;
      running++;
      start();
    }
  };
  const perform = async (items: readonly Item[], waited: number): Promise<readonly (Result | Error)[]> => {
    if (items.length === 0) return [];
    try {
      const results = await work(items, waited);
      if (results.length !== items.length) throw new Error(`a batch of ${items.length} gave ${results.length} results`);
      return results;
    } catch (error) {
      if (!mayBeOnes(error)) throw error;
      const alone = (item: Item): Promise<readonly (Result | Error)[]> => work([item], waited).catch((e: unknown) => [toError(e)]);
      if (sideBySide) return (await Promise.all(items.map(alone))).flat();
      const results: (Result | Error)[] = [];
      for (const item of items) results.push(...(await alone(item)));
      return results;
    }
  };
  const loader = new DataLoader<Asked<Item>, Promise<Result>>(
    (asked) => {
      const now = performance.now();
      const earliest = now - patience;
      const timely = asked.filter(({ at }) => at >= earliest);
      const results = perform(
        timely.map(({ item }) => item),
        now - (timely[0]?.at ?? now),
      ).finally(() => {
        running--;
        startNext();
      });
      let next = 0;
      const answers = asked.map(({ at }) => (at < earliest ? tooLate() : itsOwn(results, next++)));
      return Promise.resolve(answers);
    },
    {
      cache: false,
      maxBatchSize: size,
      batchScheduleFn: (start) => {
        setImmediate(() => {
          ready.push(start);
          startNext();
        });
      },
    },
  );

  return (item) => {
    if (waiting >= queue) return Promise.reject(problem("SERVICE_UNAVAILABLE", "too much is waiting"));
    waiting++;
    return loader
      .load({ item, at: performance.now() })
      .then((result) => result)
      .finally(() => waiting--);
  };
}

interface Asked<Item> {
  item: Item;
  at: number;
}

/** The result of one item of a batch that is under way. */
async function itsOwn<Result>(results: Promise<readonly (Result | Error)[]>, n: number): Promise<Result> {
  const result = (await results)[n];
  if (result instanceof Error) throw result;
  return result as Result; // there are as many as items
}

const tooLate = () => problem("SERVICE_UNAVAILABLE", "this waited for too long");

const toError = (error: unknown): Error => (error instanceof Error ? error : new Error(String(error)));
