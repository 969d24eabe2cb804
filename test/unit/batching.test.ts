import { stat } from "node:fs";
import fc from "fast-check";
import { batch } from "../../mixins/batching";

type Work = (items: readonly number[]) => Promise<readonly (string | Error)[]>;

/** Work that ends when it is told to, and remembers what it was given. */
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
  it("what is asked at the same moment is done by one call, and each gets its own result", async () => {
    const calls: number[] = [];
    const square = batch<number, number>((items) => {
      calls.push(items.length);
      return Promise.resolve(items.map((item) => item * item));
    });
    await expect(Promise.all(range(100).map(square))).resolves.toEqual(range(100).map((i) => i * i));
    expect(calls).toEqual([100]);
  });

  it("a lone item starts in the same turn of the event loop, before any timer", async () => {
    const { calls, work } = held();
    await new Promise((resolve) => stat(".", resolve)); // where the sockets are read: what is immediate comes next, and timers then
    let timer = false;
    setTimeout(() => (timer = true), 0);
    const alone = batch(work)(7);
    await turn();
    expect([calls.length, timer]).toEqual([1, false]);
    calls[0]!.end();
    await expect(alone).resolves.toBe("done 7");
  });

  it("while two batches are under way the rest gathers, in order of arrival, and goes when one returns", async () => {
    const { calls, work } = held();
    const one = batch(work);
    const all: Promise<string>[] = [];
    for (const items of [[1], [2], [3, 4], [5]]) {
      all.push(...items.map(one));
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

  it("a batch has at most so many items as is said", async () => {
    const sizes: number[] = [];
    const one = batch<number, number>(
      (items) => {
        sizes.push(items.length);
        return Promise.resolve(items);
      },
      { size: 128 },
    );
    await Promise.all(range(300).map(one));
    expect(sizes).toEqual([128, 128, 44]);
  });

  it("a full queue refuses at once, and takes items again when others are done", async () => {
    const { calls, work } = held();
    const one = batch(work, { queue: 2 });
    const first = [one(1), one(2)];
    await expect(one(3)).rejects.toMatchObject({ type: "SERVICE_UNAVAILABLE" });
    await turn();
    calls[0]!.end();
    await Promise.all(first);
    const again = one(4);
    await turn();
    calls[1]!.end();
    await expect(again).resolves.toBe("done 4");
  });

  it("what waits for too long behind slow batches is refused when its turn comes; what came later goes", async () => {
    const { calls, work } = held();
    const one = batch(work, { underWay: 1, patience: 40 });
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

  it("hears how long the first of its items has waited", async () => {
    const waits: number[] = [];
    let end = (): void => undefined;
    const one = batch<number, number>(
      async (items, waited) => {
        waits.push(waited);
        await new Promise<void>((resolve) => (end = resolve));
        return items;
      },
      { underWay: 1 },
    );
    const first = one(1);
    await turn();
    const since = performance.now();
    const second = one(2);
    while (performance.now() - since < 60) await turn();
    const third = one(3);
    await turn();
    end();
    await first;
    await turn();
    end();
    await Promise.all([second, third]);
    expect(waits).toHaveLength(2);
    expect(waits[0]).toBeLessThan(60);
    expect(waits[1]).toBeGreaterThanOrEqual(60);
  });

  it("an item's own error is that item's alone: the 127 others succeed", async () => {
    const one = batch<number, number>((items) => Promise.resolve(items.map((item) => (item === 77 ? new Error("bad") : item))));
    const results = await Promise.allSettled(range(128).map(one));
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(127);
    expect(results[77]).toMatchObject({ status: "rejected", reason: { message: "bad" } });
  });

  it.each([true, false])("work that throws for one item's sake is done again for each by itself (side by side: %s)", async (sideBySide) => {
    const calls: number[] = [];
    const one = batch<number, number>(
      (items) => {
        calls.push(items.length);
        return items.includes(77) ? Promise.reject(new Error("bad")) : Promise.resolve(items);
      },
      { mayBeOnes: (error) => error instanceof Error && error.message === "bad", sideBySide },
    );
    const results = await Promise.allSettled(range(128).map(one));
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(127);
    expect(results[77]).toMatchObject({ status: "rejected", reason: { message: "bad" } });
    expect(calls).toEqual([128, ...range(128).map(() => 1)]);
  });

  it("work that throws for all of them is not repeated, and each is told", async () => {
    let calls = 0;
    const one = batch<number, number>(() => {
      calls++;
      return Promise.reject(new Error("away"));
    });
    const results = await Promise.allSettled(range(3).map(one));
    expect(results).toEqual(range(3).map(() => ({ status: "rejected", reason: new Error("away") })));
    expect(calls).toBe(1);
  });

  it("however items come and batches end, each is done once and gets its own result", async () => {
    const steps = fc.array(fc.oneof(fc.constant("turn" as const), fc.constant("fail" as const), fc.constant("end" as const), fc.nat(9)));
    await fc.assert(
      fc.asyncProperty(steps, fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 3 }), async (schedule, size, underWay) => {
        const { calls, work } = held();
        const one = batch(work, { size, underWay });
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
          else if (step === "fail") end(new Error("away"));
          else
            for (let i = 0; i <= step; i++) {
              asked.push(Promise.allSettled([one(items.length)]));
              items.push(items.length);
            }
          expect(calls.length - ended).toBeLessThanOrEqual(underWay);
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
