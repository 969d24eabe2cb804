import fc from "fast-check";
import { FairQueue, FairSlots, shareOf, SlowAddresses, type Client } from "../../../mixins/fair-queue";
import { testId } from "../../../testkit/ids";

/** Replaces the clock by one that the test moves. */
function clock(): { ms: number } {
  const now = { ms: 0 };
  jest.spyOn(performance, "now").mockImplementation(() => now.ms);
  return now;
}
afterEach(() => jest.restoreAllMocks());

const client = (address: string, user?: number): Client => ({ address, user: user === undefined ? undefined : testId(user) });
const drain = <T>(queue: FairQueue<T>): T[] => {
  const all: T[] = [];
  for (let item = queue.take(); item !== undefined; item = queue.take()) all.push(item);
  return all;
};

describe("FairQueue", () => {
  it("takes one item of each address in turn, however many one of them has added", () => {
    const queue = new FairQueue<string>(100);
    for (const n of [1, 2, 3]) queue.add(client("a"), `a${n}`);
    queue.add(client("b"), "b1");
    queue.add(client("c"), "c1");
    expect(drain(queue)).toEqual(["a1", "b1", "c1", "a2", "a3"]);
  });

  it("takes one item of each user of an address in turn", () => {
    const queue = new FairQueue<string>(100);
    for (const n of [1, 2, 3]) queue.add(client("a", 1), `one${n}`);
    queue.add(client("a", 2), "two1");
    expect(drain(queue)).toEqual(["one1", "two1", "one2", "one3"]);
  });

  it("gives an address with many users no more turns than one with a single user", () => {
    const queue = new FairQueue<string>(100);
    for (const user of [1, 2, 3, 4]) queue.add(client("a", user), `a${user}`);
    for (const n of [1, 2]) queue.add(client("b", 9), `b${n}`);
    expect(drain(queue).slice(0, 4)).toEqual(["a1", "b1", "a2", "b2"]);
  });

  it("refuses an address that holds a quarter of the places, and still takes others", () => {
    const queue = new FairQueue<number>(8);
    queue.add(client("a", 1), 1);
    queue.add(client("a", 2), 2);
    expect(() => queue.add(client("a", 3), 3)).toThrow("too many of your requests");
    queue.add(client("b"), 4);
    queue.take();
    queue.add(client("a", 3), 5);
    expect(drain(queue)).toEqual([4, 2, 5]);
  });

  it("refuses a user who holds a quarter of the places from several addresses", () => {
    const queue = new FairQueue<number>(8);
    queue.add(client("a", 1), 1);
    queue.add(client("b", 1), 2);
    expect(() => queue.add(client("c", 1), 3)).toThrow("too many of your requests");
    queue.add(client("c", 2), 4);
    queue.take();
    queue.add(client("c", 1), 5);
  });

  it("is unavailable to all clients when all places are taken", () => {
    const queue = new FairQueue<number>(4);
    for (const address of ["a", "b", "c", "d"]) queue.add(client(address), 1);
    expect(() => queue.add(client("e"), 1)).toThrow("too many requests are queued");
  });

  it("loses and duplicates nothing, and lets no address wait for two items of another, in whatever order items arrive", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(4), fc.nat(3), fc.boolean()), { maxLength: 300 }), (steps) => {
        const queue = new FairQueue<{ n: number; address: string }>(10_000);
        const waiting = new Map<number, string>();
        const takenSince = new Map<number, string[]>();
        steps.forEach(([address, user, takes], n) => {
          queue.add(client(String(address), user), { n, address: String(address) });
          // An address's first item waits for at most one item of each other address.
          if (![...waiting.values()].includes(String(address))) takenSince.set(n, []);
          waiting.set(n, String(address));
          if (!takes) return;
          const taken = queue.take()!;
          expect(waiting.delete(taken.n)).toBe(true);
          takenSince.delete(taken.n);
          for (const others of takenSince.values()) {
            expect(others).not.toContain(taken.address);
            others.push(taken.address);
          }
        });
        expect(queue.size).toBe(waiting.size);
        expect(
          drain(queue)
            .map(({ n }) => n)
            .sort((a, b) => a - b),
        ).toEqual([...waiting.keys()]);
      }),
    );
  });
});

describe("FairSlots", () => {
  /** Work that runs until the test ends it. */
  function work() {
    const started: string[] = [];
    const ends = new Map<string, () => void>();
    const run = (name: string) => (): Promise<void> => {
      started.push(name);
      return new Promise((resolve) => ends.set(name, resolve));
    };
    const end = async (name: string): Promise<void> => {
      ends.get(name)!();
      await new Promise(setImmediate);
    };
    return { started, run, end };
  }

  it("lets one client use every slot while no other client waits, and gives the next free slot to another client", async () => {
    const slots = new FairSlots({ slots: 2, places: 100 });
    const { started, run, end } = work();
    for (const name of ["a1", "a2", "a3", "a4"]) void slots.run(client("a"), run(name));
    void slots.run(client("b"), run("b1"));
    expect(started).toEqual(["a1", "a2"]);
    await end("a1");
    await end("a2");
    expect(started).toEqual(["a1", "a2", "a3", "b1"]);
  });

  it("does not start work that is no longer needed when its turn comes, and refuses it", async () => {
    const slots = new FairSlots({ slots: 1, places: 100 });
    const { started, run, end } = work();
    void slots.run(client("a"), run("a1"));
    const gone = slots.run(client("a"), run("a2"), () => false);
    void slots.run(client("a"), run("a3"));
    const refused = expect(gone).rejects.toMatchObject({ type: "SERVICE_UNAVAILABLE" });
    await end("a1");
    await refused;
    expect(started).toEqual(["a1", "a3"]);
  });

  it("frees its slot when work fails", async () => {
    const slots = new FairSlots({ slots: 1, places: 4 });
    await expect(slots.run(client("a"), () => Promise.reject(new Error("no")))).rejects.toThrow("no");
    expect(slots.inFlight).toBe(0);
    await expect(slots.run(client("a"), () => Promise.resolve(1))).resolves.toBe(1);
  });

  it("refuses work of an address beyond its share, and doesn't count it", async () => {
    const slots = new FairSlots({ slots: 1, places: 4 });
    const { run } = work();
    void slots.run(client("a"), run("a1"));
    void slots.run(client("a"), run("a2"));
    await expect(slots.run(client("a"), run("a3"))).rejects.toMatchObject({ type: "TOO_MANY_REQUESTS" });
    expect(slots.waiting).toBe(shareOf(4));
  });

  it("runs the work of slow addresses one at a time for half a minute, and that of others in the remaining slots", async () => {
    const now = clock();
    const slots = new FairSlots({ slots: 3, places: 100, slow: new SlowAddresses() });
    const { started, run, end } = work();
    for (const address of ["a", "b"]) void slots.run(client(address), run(`${address}1`));
    now.ms += 151;
    await end("a1");
    await end("b1");
    for (const name of ["a2", "a3", "b2", "c1", "c2", "c3"]) void slots.run(client(name.slice(0, 1)), run(name));
    await new Promise(setImmediate);
    expect(started.slice(2)).toEqual(["a2", "c1", "c2"]);
    await end("c1");
    expect(started.slice(5)).toEqual(["c3"]);
    await end("a2");
    expect(started.slice(6)).toEqual(["a3"]);
    await end("a3");
    expect(started.slice(7)).toEqual(["b2"]);
    await end("b2");
    now.ms += 30_000;
    for (const name of ["c2", "c3"]) await end(name);
    for (const name of ["a4", "a5"]) void slots.run(client("a"), run(name));
    expect(started.slice(8)).toEqual(["a4", "a5"]);
  });

  it("counts work of an address that has turned out to be slow since it began", async () => {
    const now = clock();
    const slots = new FairSlots({ slots: 2, places: 100, slow: new SlowAddresses() });
    const { started, run, end } = work();
    for (const name of ["a1", "a2", "a3", "b1"]) void slots.run(client(name.slice(0, 1)), run(name));
    now.ms += 151;
    await end("a1");
    expect(started).toEqual(["a1", "a2", "b1"]);
    await end("b1");
    expect(started).toEqual(["a1", "a2", "b1"]);
    await end("a2");
    expect(started).toEqual(["a1", "a2", "b1", "a3"]);
  });
});

describe("SlowAddresses", () => {
  it("treats addresses that shared slow work as possibly slow, until work of one alone was slow", () => {
    const slow = new SlowAddresses();
    slow.note(new Set(["a", "b"]), 151, 0, false);
    expect(["a", "b", "c"].map((address) => [slow.isSlow(address, 1), slow.mayBeSlow(address, 1)])).toEqual([
      [false, true],
      [false, true],
      [false, false],
    ]);
    slow.note(new Set(["a"]), 151, 1, false);
    slow.note(new Set(["b"]), 150, 1, false);
    slow.note(new Set(["a", "b"]), 151, 2, false);
    expect(["a", "b"].map((address) => slow.isSlow(address, 3))).toEqual([true, false]);
    expect(["a", "b"].map((address) => slow.mayBeSlow(address, 30_002))).toEqual([false, false]);
  });

  it("treats all addresses that asked for the same slow item as slow", () => {
    const slow = new SlowAddresses();
    slow.note(new Set(["a", "b"]), 151, 0, true);
    expect(["a", "b"].map((address) => slow.isSlow(address, 1))).toEqual([true, true]);
  });
});
