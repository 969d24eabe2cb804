import type { Snapshot } from "../../../../contracts/operations";
import { Snapshots } from "../../../../services/api/operations/snapshots";

/** A source that takes so long for each snapshot, and counts them. */
function source(tookMs = 0) {
  const taken = { count: 0 };
  const snapshots = new Snapshots(async () => {
    taken.count++;
    if (tookMs > 0) await new Promise((resolve) => setTimeout(resolve, tookMs));
    return { at: String(taken.count) } as Snapshot;
  });
  return { taken, snapshots };
}

beforeEach(() => jest.useFakeTimers());
afterEach(() => jest.useRealTimers());

it("several watchers share one snapshot per second, and the first is taken at once", async () => {
  const { taken, snapshots } = source();
  const seen: string[][] = [[], []];
  for (const texts of seen) snapshots.watch((text) => texts.push(text));
  await jest.advanceTimersByTimeAsync(3_500);
  expect(taken.count).toBe(4);
  expect(seen).toEqual([seen[1], ['{"at":"1"}', '{"at":"2"}', '{"at":"3"}', '{"at":"4"}']]);
});

it("without a watcher none is taken, and a new watcher gets one at once", async () => {
  const { taken, snapshots } = source();
  const end = snapshots.watch(() => undefined);
  await jest.advanceTimersByTimeAsync(1_500);
  end();
  await jest.advanceTimersByTimeAsync(5_000);
  expect([taken.count, jest.getTimerCount()]).toEqual([2, 0]);
  snapshots.watch(() => undefined);
  await jest.advanceTimersByTimeAsync(0);
  expect(taken.count).toBe(3);
});

it("a slow service delays the next snapshot: two are never taken at the same time", async () => {
  const { taken, snapshots } = source(2_500);
  snapshots.watch(() => undefined);
  await jest.advanceTimersByTimeAsync(2_400);
  expect(taken.count).toBe(1);
  await jest.advanceTimersByTimeAsync(200);
  expect(taken.count).toBe(2);
});

it("a watcher that comes while the last one's snapshot is being taken starts no second series", async () => {
  const { taken, snapshots } = source(500);
  const end = snapshots.watch(() => undefined);
  await jest.advanceTimersByTimeAsync(100);
  end();
  const seen: string[] = [];
  snapshots.watch((text) => seen.push(text));
  await jest.advanceTimersByTimeAsync(5_000);
  expect(taken.count).toBeLessThanOrEqual(7);
  expect(seen[0]).toBe('{"at":"2"}');
});

it("somebody who begins to watch later gets the last snapshot at once", async () => {
  const { snapshots } = source();
  snapshots.watch(() => undefined);
  await jest.advanceTimersByTimeAsync(1_500);
  const seen: string[] = [];
  snapshots.watch((text) => seen.push(text));
  expect(seen).toEqual(['{"at":"2"}']);
});
