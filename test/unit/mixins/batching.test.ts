import { stat } from "node:fs";
import fc from "fast-check";
import { currentDeadline, currentRequestId, withRequest } from "../../../broker/request";
import { batch, type Requester } from "../../../mixins/batching";
import { SlowAddresses } from "../../../mixins/fair-queue";
import { until } from "../../../testkit/until";

type Work = (items: readonly number[]) => Promise<readonly (string | Error)[]>;

/** Work that the test ends, and that remembers its items. */
function held() {
  const calls: { items: readonly number[]; end: (error?: Error) => void }[] = [];
  const work: Work = (items) =>
    new Promise((resolve, reject) => {
      calls.push({ items, end: (error) => (error ? reject(error) : resolve(items.map((item) => `done ${item}`))) });
    });
  return { calls, work };
}
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const range = (length: number): number[] => Array.from({ length }, (_, i) => i);

describe("batch", () => {
  it("items of the same moment are done by one call, and each gets its own result", async () => {
    const calls: number[] = [];
    const square = batch<number, number>((items) => {
      calls.push(items.length);
      return Promise.resolve(items.map((item) => item * item));
    });
    await expect(Promise.all(range(100).map((n) => square(n)))).resolves.toEqual(range(100).map((i) => i * i));
    expect(calls).toEqual([100]);
  });

  it("a lone item starts in the same turn of the event loop, before any timer", async () => {
    const { calls, work } = held();
    await new Promise((resolve) => stat(".", resolve)); // continues in the poll phase, which immediates follow, and then timers
    let timer = false;
    setTimeout(() => (timer = true), 0);
    const alone = batch(work)(7);
    await turn();
    expect([calls.length, timer]).toEqual([1, false]);
    calls[0]!.end();
    await expect(alone).resolves.toBe("done 7");
  });

  it("while two batches are in flight, the rest waits in order of arrival, and starts when one returns", async () => {
    const { calls, work } = held();
    const one = batch(work);
    const all: Promise<string>[] = [];
    for (const items of [[1], [2], [3, 4], [5]]) {
      all.push(...items.map((n) => one(n)));
      await turn();
    }
    expect(calls.map(({ items }) => items)).toEqual([[1], [2]]);
    calls[1]!.end();
    await all[1];
    await turn();
    expect(calls.map(({ items }) => items)).toEqual([[1], [2], [3, 4, 5]]);
    for (const { end } of calls) end();
    await expect(Promise.all(all)).resolves.toHaveLength(5);
  });

  it("a batch has at most the configured number of items", async () => {
    const sizes: number[] = [];
    const one = batch<number, number>(
      (items) => {
        sizes.push(items.length);
        return Promise.resolve(items);
      },
      { size: 128 },
    );
    await Promise.all(range(300).map((n) => one(n)));
    expect(sizes).toEqual([128, 128, 44]);
  });

  it("a full queue refuses items at once, and accepts them again when others have started", async () => {
    const { calls, work } = held();
    const one = batch(work, { places: 2 });
    const first = [one(1), one(2)];
    await expect(one(3)).rejects.toMatchObject({ type: "SERVICE_UNAVAILABLE" });
    await turn();
    const again = one(4);
    await turn();
    for (const { end } of calls) end();
    await Promise.all(first);
    await expect(again).resolves.toBe("done 4");
  });

  it("items of several clients take turns in a batch, and a client that uses up its share of the places is refused", async () => {
    const { calls, work } = held();
    const one = batch(work, { places: 8, size: 2, inFlight: 1 });
    const from = (address: string): Requester => ({ address, user: undefined, isWanted: () => true });
    const all = [one(1, from("a")), one(2, from("a")), one(3, from("b"))];
    await expect(one(4, from("a"))).rejects.toMatchObject({ type: "TOO_MANY_REQUESTS" });
    await turn();
    expect(calls[0]!.items).toEqual([1, 3]);
    calls[0]!.end();
    await turn();
    calls[1]!.end();
    await expect(Promise.all(all)).resolves.toEqual(["done 1", "done 2", "done 3"]);
  });

  it("an item whose client has disconnected, or whose deadline has passed, is left out", async () => {
    const { calls, work } = held();
    const one = batch(work, { inFlight: 1 });
    const first = one(1);
    await turn();
    const gone = Promise.allSettled([one(2, { address: "a", user: undefined, isWanted: () => false })]);
    const late = Promise.allSettled([withRequest("late", performance.now() + 20, () => one(3))]);
    const timely = withRequest("timely", performance.now() + 10_000, () => one(4));
    const since = performance.now();
    while (performance.now() - since < 30) await turn();
    calls[0]!.end();
    await first;
    await turn();
    expect(calls[1]!.items).toEqual([4]);
    calls[1]!.end();
    await expect(timely).resolves.toBe("done 4");
    for (const refused of [gone, late])
      await expect(refused).resolves.toMatchObject([{ status: "rejected", reason: { type: "SERVICE_UNAVAILABLE" } }]);
  });

  it("has the latest deadline of its items, and belongs to no single request", async () => {
    const seen: [string | undefined, number][] = [];
    const one = batch<number, number>((items) => {
      seen.push([currentRequestId(), currentDeadline()]);
      return Promise.resolve(items);
    });
    const soon = performance.now() + 5_000;
    await Promise.all([withRequest("a", soon, () => one(1)), withRequest("b", soon + 1_000, () => one(2))]);
    expect(seen).toEqual([[undefined, soon + 1_000]]);
  });

  it("a batch has at most the configured weight, and a heavier item is alone in its batch", async () => {
    const batches: (readonly number[])[] = [];
    const one = batch<number, number>(
      (items) => {
        batches.push(items);
        return Promise.resolve(items);
      },
      { weight: { of: (item) => item, max: 10 } },
    );
    await Promise.all([4, 5, 3, 50, 7, 3].map((n) => one(n)));
    expect(batches).toEqual([[4, 5], [3], [50], [7, 3]]);
  });

  it("items with the same key share one place and its result, whichever client they belong to", async () => {
    const { calls, work } = held();
    const one = batch(work, { size: 2, inFlight: 1, keyOf: String });
    const from = (address: string, isWanted = true): Requester => ({ address, user: undefined, isWanted: () => isWanted });
    const all = [1, 2, 3, 1].map((n) => one(n, from("a")));
    const gone = Promise.allSettled([one(1, from("b", false))]);
    const others = [3, 2].map((n) => one(n, from("c")));
    await turn();
    expect(calls[0]!.items).toEqual([1, 3]);
    calls[0]!.end();
    await turn();
    expect(calls[1]!.items).toEqual([2]);
    calls[1]!.end();
    await expect(Promise.all([...all, ...others])).resolves.toEqual([1, 2, 3, 1, 3, 2].map((n) => `done ${n}`));
    await expect(gone).resolves.toMatchObject([{ status: "rejected" }]);
    const again = one(1, from("a"));
    await turn();
    calls[2]!.end();
    await expect(again).resolves.toBe("done 1");
  });

  it("one client's heavy items take turns with the light ones of others", async () => {
    const { calls, work } = held();
    const one = batch(work, { inFlight: 1, weight: { of: (n) => n % 100, max: 10 } });
    const from = (address: string): Requester => ({ address, user: undefined, isWanted: () => true });
    const all = [9, 109, 209, 309].map((n) => one(n, from("a")));
    await turn();
    all.push(one(8, from("b")), one(1, from("c")));
    for (let n = 0; n < 5; n++) {
      calls[n]!.end();
      await turn();
    }
    await Promise.all(all);
    expect(calls.map(({ items }) => items)).toEqual([[9], [109, 1], [8], [209], [309]]);
  });

  it("an item that waited too long behind slow batches is refused at its turn; later items are served", async () => {
    const { calls, work } = held();
    const one = batch(work, { inFlight: 1, patienceMs: 40 });
    const first = one(1);
    await turn();
    const late = Promise.allSettled([one(2)]);
    const since = performance.now();
    while (performance.now() - since < 60) await turn();
    const fresh = one(3);
    calls[0]!.end();
    await expect(first).resolves.toBe("done 1");
    await expect(late).resolves.toMatchObject([{ status: "rejected", reason: { type: "SERVICE_UNAVAILABLE" } }]);
    expect(calls[1]!.items).toEqual([3]);
    calls[1]!.end();
    await expect(fresh).resolves.toBe("done 3");
  });

  it("items of a slow address get batches of their own, one at a time; those of others don't wait for them", async () => {
    const now = { ms: 0 };
    const clock = jest.spyOn(performance, "now").mockImplementation(() => now.ms);
    const { calls, work } = held();
    const one = batch(work, { size: 2, inFlight: 2, slow: new SlowAddresses() });
    const from = (address: string): Requester => ({ address, user: undefined, isWanted: () => true });
    const add = async (...items: [number, string][]): Promise<void> => {
      for (const [item, address] of items) void one(item, from(address));
      await turn();
    };
    const end = async (call: number): Promise<void> => {
      calls[call]!.end();
      await turn();
    };
    await add([1, "a"], [2, "b"]);
    now.ms += 151;
    await end(0); // slow, because of a or b
    await add([3, "a"], [4, "b"]);
    expect(calls.slice(1).map(({ items }) => items)).toEqual([[3], [4]]);
    await end(2);
    now.ms += 151;
    await end(1); // slow, because of a
    await add([5, "a"], [6, "a"], [7, "b"], [8, "c"], [9, "c"]);
    expect(calls.slice(3).map(({ items }) => items)).toEqual([[5], [7]]);
    await end(4);
    expect(calls.slice(5).map(({ items }) => items)).toEqual([[8, 9]]);
    await end(5);
    expect(calls).toHaveLength(6);
    await end(3);
    expect(calls.slice(6).map(({ items }) => items)).toEqual([[6]]);
    await end(6);
    clock.mockRestore();
  });

  it("the work is given the waiting time of its first item", async () => {
    const waits: number[] = [];
    let end = (): void => undefined;
    const one = batch<number, number>(
      async (items, waited) => {
        waits.push(waited);
        await new Promise<void>((resolve) => (end = resolve));
        return items;
      },
      { inFlight: 1 },
    );
    const added = performance.now();
    const first = one(1);
    await turn();
    const startedAfterMs = performance.now() - added;
    const second = one(2);
    const since = performance.now();
    while (performance.now() - since < 60) await turn();
    const third = one(3);
    await turn();
    end();
    await first;
    await turn();
    end();
    await Promise.all([second, third]);
    expect(waits).toHaveLength(2);
    expect(waits[0]).toBeLessThanOrEqual(startedAfterMs);
    expect(waits[1]).toBeGreaterThanOrEqual(60);
    expect(waits[1]).toBeLessThanOrEqual(performance.now() - added);
  });

  it("an item's own error fails only that item: the 127 others succeed", async () => {
    const one = batch<number, number>((items) => Promise.resolve(items.map((item) => (item === 77 ? new Error("bad") : item))));
    const results = await Promise.allSettled(range(128).map((n) => one(n)));
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(127);
    expect(results[77]).toMatchObject({ status: "rejected", reason: { message: "bad" } });
  });

  it.each([true, false])("work that throws because of one item is retried individually for each (in parallel: %s)", async (inParallel) => {
    const calls: number[] = [];
    const one = batch<number, number>(
      (items) => {
        calls.push(items.length);
        return items.includes(77) ? Promise.reject(new Error("bad")) : Promise.resolve(items);
      },
      { shouldRetryIndividually: (error) => error instanceof Error && error.message === "bad", inParallel },
    );
    const results = await Promise.allSettled(range(128).map((n) => one(n)));
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(127);
    expect(results[77]).toMatchObject({ status: "rejected", reason: { message: "bad" } });
    expect(calls).toEqual([128, ...range(128).map(() => 1)]);
  });

  it("of work that returns the first results only, each is passed on at once, and the others are requested again", async () => {
    const calls: (readonly number[])[] = [];
    const releases: (() => void)[] = [];
    const one = batch<number, number>(
      async (items) => {
        calls.push(items);
        if (calls.length > 1) await new Promise<void>((resolve) => releases.push(resolve));
        return items.slice(0, 2);
      },
      { allowPartialResults: true },
    );
    const done: number[] = [];
    const all = Promise.all(range(5).map(async (n) => done.push(await one(n))));
    await until("the second call has begun", () => calls.length === 2);
    expect(done).toEqual([0, 1]);
    releases[0]?.();
    await until("the third call has begun", () => calls.length === 3);
    expect(done).toEqual([0, 1, 2, 3]);
    releases[1]?.();
    await all;
    expect([done, calls]).toEqual([range(5), [range(5), [2, 3, 4], [4]]]);
  });

  it.each([true, false])("work without any result fails all items (may be a part: %s)", async (allowPartialResults) => {
    const one = batch<number, number>(() => Promise.resolve([]), { allowPartialResults });
    const results = await Promise.allSettled(range(3).map((n) => one(n)));
    expect(results.map(({ status }) => status)).toEqual(["rejected", "rejected", "rejected"]);
  });

  it("work that throws for a common reason is not retried, and fails every item", async () => {
    let calls = 0;
    const one = batch<number, number>(() => {
      calls++;
      return Promise.reject(new Error("unavailable"));
    });
    const results = await Promise.allSettled(range(3).map((n) => one(n)));
    expect(results).toEqual(range(3).map(() => ({ status: "rejected", reason: new Error("unavailable") })));
    expect(calls).toBe(1);
  });

  it("however items arrive and batches end, each is done once and gets its own result", async () => {
    const steps = fc.array(fc.oneof(fc.constant("turn" as const), fc.constant("fail" as const), fc.constant("end" as const), fc.nat(9)));
    await fc.assert(
      fc.asyncProperty(steps, fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 3 }), async (schedule, size, inFlight) => {
        const { calls, work } = held();
        const one = batch(work, { size, inFlight });
        const asked: Promise<PromiseSettledResult<string>[]>[] = [];
        const items: number[] = [];
        const failed = new Set<number>();
        let ended = 0;
        const end = (error?: Error): void => {
          const call = calls[ended];
          if (call === undefined) return;
          ended++;
          if (error) for (const item of call.items) failed.add(item);
          call.end(error);
        };
        for (const step of schedule) {
          if (step === "turn") await turn();
          else if (step === "end") end();
          else if (step === "fail") end(new Error("unavailable"));
          else
            for (let i = 0; i <= step; i++) {
              asked.push(Promise.allSettled([one(items.length)]));
              items.push(items.length);
            }
          expect(calls.length - ended).toBeLessThanOrEqual(inFlight);
        }
        for (let idle = 0; idle < 3;) {
          await turn();
          idle = ended < calls.length ? 0 : idle + 1;
          while (ended < calls.length) end();
        }
        expect(calls.flatMap((call) => call.items)).toEqual(items); // each once, in order of arrival
        expect(calls.every((call) => call.items.length <= size)).toBe(true);
        const results = (await Promise.all(asked)).flat();
        expect(results.map(({ status }) => status)).toEqual(items.map((item) => (failed.has(item) ? "rejected" : "fulfilled")));
        for (const [i, result] of results.entries()) if (result.status === "fulfilled") expect(result.value).toBe(`done ${i}`);
      }),
      { numRuns: 300 },
    );
  });
});
