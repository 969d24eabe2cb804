import { Turns, type QueueName } from "../../../services/users/turns";

/** Milliseconds of a hash, and the usual time limit: ten hashes. */
const HASH_MS = 100;
const PATIENCE_MS = 1_000;

beforeEach(() => jest.useFakeTimers());
afterEach(() => jest.useRealTimers());

interface Request {
  queue?: QueueName;
  address?: string;
  patienceMs?: number;
  isWanted?: () => boolean;
}

/** Requests hashes, and records which were started. */
class Desk {
  readonly started: string[] = [];
  private readonly turns: Turns;
  hashMs = HASH_MS;

  constructor(threads = 1) {
    this.turns = new Turns(threads);
  }

  /** @returns the name, or the code of the error */
  ask(name: string, { queue = "logins", address = name, patienceMs = PATIENCE_MS, isWanted = () => true }: Request = {}): Promise<string> {
    const turn = { queue, client: { address, user: undefined }, deadline: performance.now() + patienceMs, isWanted };
    const work = async () => {
      this.started.push(name);
      await new Promise((resolve) => setTimeout(resolve, this.hashMs));
      return name;
    };
    return this.turns.run(turn, () => this.hashMs, work).catch((error: unknown) => (error as { type: string }).type);
  }

  async all(requests: readonly Promise<string>[]): Promise<string[]> {
    await jest.advanceTimersByTimeAsync(10 * PATIENCE_MS);
    return Promise.all(requests);
  }
}

it("logins and registrations alternate while both are queued, however many there are of one kind", async () => {
  const desk = new Desk();
  const registrations = ["r1", "r2", "r3", "r4"].map((name) => desk.ask(name, { queue: "registrations" }));
  const logins = ["l1", "l2"].map((name) => desk.ask(name));
  await desk.all([...registrations, ...logins]);
  expect(desk.started).toEqual(["r1", "l1", "r2", "l2", "r3", "r4"]);
});

it("turns rotate among addresses: a new address waits only for the hash in progress", async () => {
  const desk = new Desk();
  const greedy = ["a1", "a2", "a3"].map((name) => desk.ask(name, { address: "a" }));
  await desk.all([...greedy, desk.ask("b")]);
  expect(desk.started).toEqual(["a1", "b", "a2", "a3"]);
});

it("an address in both queues has no more turns than one with a login", async () => {
  const desk = new Desk();
  const greedy = [
    desk.ask("a1", { address: "a" }),
    desk.ask("a2", { address: "a" }),
    desk.ask("a3", { address: "a", queue: "registrations" }),
  ];
  const others = ["b1", "b2"].map((name) => desk.ask(name, { address: "b" }));
  await desk.all([...greedy, ...others]);
  expect(desk.started).toEqual(["a1", "b1", "a3", "b2", "a2"]);
});

it("an address that had a turn comes after others for four turns, and no later", async () => {
  const desk = new Desk();
  const first = [desk.ask("a1", { address: "a" }), desk.ask("a2", { address: "a" })];
  const others = ["b", "c", "d", "e", "f", "g"].map((name) => desk.ask(name, { queue: "registrations" }));
  await desk.all([...first, ...others]);
  expect(desk.started).toEqual(["a1", "b", "c", "d", "e", "a2", "f", "g"]);
});

it("a request is not refused because of queued ones that it comes before", async () => {
  const desk = new Desk();
  const first = desk.ask("a1", { address: "a" });
  const queued = ["a2", "a3"].map((name) => desk.ask(name, { address: "a", queue: "registrations" }));
  // Time for the hash in progress and its own, but not for another one.
  const hurried = desk.ask("b", { patienceMs: 2.2 * HASH_MS });
  expect(await desk.all([first, ...queued, hurried])).toEqual(["a1", "a2", "a3", "b"]);
  expect(desk.started).toEqual(["a1", "b", "a2", "a3"]);
});

it("one client uses every thread while no other client is waiting", () => {
  const desk = new Desk(3);
  for (const name of ["a1", "a2", "a3"]) void desk.ask(name, { address: "a" });
  expect(desk.started).toEqual(["a1", "a2", "a3"]);
});

it("an address that has queued a quarter of what can be served by the deadline → 429 at once, and others still get in", async () => {
  const desk = new Desk();
  const greedy = Array.from({ length: 8 }, (_, i) => desk.ask(`a${i}`, { address: "a" }));
  const others = ["b", "c", "d"].map((name) => desk.ask(name));
  const served = ["a0", "a1", "a2"]; // one starts at once, and two of ten wait
  expect(await desk.all([...greedy, ...others])).toEqual([...served, ...Array<string>(5).fill("TOO_MANY_REQUESTS"), "b", "c", "d"]);
});

it("the share grows and shrinks with the time that a hash takes", async () => {
  for (const [hashMs, waiting] of [
    [HASH_MS / 2, 5],
    [HASH_MS * 2, 1],
  ] as const) {
    const desk = new Desk();
    desk.hashMs = hashMs;
    const greedy = Array.from({ length: 8 }, (_, i) => desk.ask(`a${i}`, { address: "a" }));
    expect((await desk.all(greedy)).filter((outcome) => outcome !== "TOO_MANY_REQUESTS")).toHaveLength(1 + waiting);
  }
});

/** Counts the requests that are refused before any time has passed. */
async function refusedAtOnce(requests: readonly Promise<string>[]): Promise<number> {
  let refused = 0;
  for (const one of requests) void one.then((outcome) => (refused += outcome === "SERVICE_UNAVAILABLE" ? 1 : 0));
  await jest.advanceTimersByTimeAsync(0);
  return refused;
}

it("a request that can't be served by its deadline → 503 at once; an admitted one is never late", async () => {
  const desk = new Desk();
  const all = Array.from({ length: 20 }, (_, i) => desk.ask(`${i}`));
  expect(await refusedAtOnce(all)).toBe(10); // one runs and nine wait; the last is done after 1,000 ms
  await desk.all(all);
  expect(desk.started).toHaveLength(10);
});

it("the other queue is taken into account: each gets half of the time while both are full", async () => {
  const desk = new Desk();
  const all = Array.from({ length: 40 }, (_, i) => desk.ask(`${i}`, { queue: i % 2 === 0 ? "logins" : "registrations" }));
  expect(await refusedAtOnce(all)).toBe(30);
  await desk.all(all);
  expect(desk.started).toHaveLength(10);
});

it("a request with little time left → 503 at once, while one with more time waits", async () => {
  const desk = new Desk();
  const [first, hasty, patient] = [desk.ask("first"), desk.ask("hasty", { patienceMs: 120 }), desk.ask("patient")];
  expect(await refusedAtOnce([hasty])).toBe(1);
  expect(await desk.all([first, patient])).toEqual(["first", "patient"]);
});

it("an idle thread accepts any request, since only that can correct an estimate that is too high", async () => {
  const desk = new Desk();
  desk.hashMs = 10 * PATIENCE_MS;
  const first = desk.ask("first");
  expect(desk.started).toEqual(["first"]);
  await desk.all([first]);
});

it("however quick hashes are, an address holds a quarter of the places, and others still get in", async () => {
  const desk = new Desk();
  desk.hashMs = 1;
  const greedy = Array.from({ length: 300 }, (_, i) => desk.ask(`a${i}`, { address: "a" }));
  const others = ["b", "c", "d"].map((name) => desk.ask(name));
  const outcomes = await desk.all([...greedy, ...others]);
  expect(outcomes.filter((outcome) => outcome.startsWith("a"))).toHaveLength(1 + 64);
  expect(outcomes.slice(-3)).toEqual(["b", "c", "d"]);
});

it("an idle thread starts nothing whose deadline has passed, or whose caller has disconnected", async () => {
  const desk = new Desk();
  const asked = [desk.ask("late", { patienceMs: -1 }), desk.ask("gone", { isWanted: () => false })];
  expect(await desk.all(asked)).toEqual(["SERVICE_UNAVAILABLE", "SERVICE_UNAVAILABLE"]);
  expect(desk.started).toEqual([]);
  expect(await desk.all([desk.ask("next")])).toEqual(["next"]);
});

it("a queued request whose deadline passes, or whose caller disconnects, is dropped unstarted; a running one is finished", async () => {
  const desk = new Desk();
  let isThere = true;
  const running = desk.ask("running", { isWanted: () => isThere });
  const gone = desk.ask("gone", { isWanted: () => isThere });
  const late = desk.ask("late", { patienceMs: 350 });
  const last = desk.ask("last");
  isThere = false;
  desk.hashMs = 400; // slower than expected
  expect(await desk.all([running, gone, late, last])).toEqual(["running", "SERVICE_UNAVAILABLE", "SERVICE_UNAVAILABLE", "last"]);
  expect(desk.started).toEqual(["running", "last"]);
});

it("work that fails frees its thread", async () => {
  const turns = new Turns(1);
  const turn = { queue: "logins" as const, client: { address: "a", user: undefined }, deadline: Infinity, isWanted: () => true };
  const failing = turns.run(
    turn,
    () => HASH_MS,
    () => Promise.reject(new Error("no thread")),
  );
  const next = turns.run(
    turn,
    () => HASH_MS,
    () => Promise.resolve("done"),
  );
  await expect(failing).rejects.toThrow("no thread");
  expect(await next).toBe("done");
});
