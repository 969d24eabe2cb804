import { IncomingMessage, ServerResponse } from "node:http";
import { Socket } from "node:net";
import { problem } from "../../../../broker/errors";
import type { Order, Status } from "../../../../contracts/orders";
import type { Snapshot } from "../../../../contracts/operations";
import { Snapshots } from "../../../../services/api/operations/snapshots";
import { Streams, type StreamLimits } from "../../../../services/api/streams/streams";
import { testId } from "../../../../testkit/ids";

const caller = { id: testId(7), role: "user" } as const;
const at = "2026-01-01T00:00:00.000Z";
const snapshot: Snapshot = {
  at,
  nodes: [],
  requests: null,
  orders: null,
  busiest: null,
};
const noSnapshots = new Snapshots(() => Promise.resolve(snapshot));

function order(...statuses: Status[]): Order {
  const history = statuses.map((status) => ({ status, at }));
  const common = { id: testId(1), user_id: caller.id, total_price: 1, items: [], reason: null, created_at: at, updated_at: at, version: 1 };
  return { ...common, status: statuses.at(-1)!, history };
}

/** A gateway's streams of one order, which `now` returns, and one open stream on a response that isn't read. */
function open(limits: Partial<StreamLimits> = {}) {
  const world = { now: (): Promise<Order> => Promise.resolve(order("PENDING")), reads: 0, isCurrent: true };
  const batched = { order: () => (world.reads++, world.now()) };
  const verifier = { verify: () => Promise.resolve(caller), refresh: () => Promise.resolve(), isCurrent: () => world.isCurrent };
  const streams = new Streams(batched, verifier, noSnapshots, limits);
  const res = new ServerResponse(new IncomingMessage(new Socket()));
  const chunks: string[] = [];
  const write = res.write.bind(res) as (chunk: string) => boolean;
  res.write = (chunk: string) => (chunks.push(chunk), write(chunk));
  res.writeHead(200);
  const following = { order: order("PENDING"), caller, seen: 1 };
  const stream = streams.open(res, following, "token", { address: "127.0.0.1", user: undefined, isWanted: () => true });
  res.once("close", () => {
    stream.close(); // as the gateway does
  });
  stream.begin();
  return { world, streams, stream, res, chunks, changed: () => streams.changed([{ order_id: testId(1) }]) };
}

/** Lets pending promises settle without advancing the time. */
const settle = () => jest.advanceTimersByTimeAsync(0);

beforeEach(() => jest.useFakeTimers());
afterEach(() => jest.useRealTimers());

it("an open stream is never silent for 15 s, reads its order at least every 5 s, and ends after 15 minutes", async () => {
  const { world, res, chunks } = open();
  await settle();
  const before = world.reads;
  for (let t = 0; t < 120; t += 5) {
    const [reads, written] = [world.reads, chunks.length];
    await jest.advanceTimersByTimeAsync(5_000);
    expect(world.reads).toBeGreaterThan(reads);
    expect(chunks.slice(written)).toContain(": \n\n");
  }
  expect(world.reads - before).toBeLessThanOrEqual(30); // at least 4 s apart
  await jest.advanceTimersByTimeAsync(900_000 - 120_000 - 1);
  expect(res.writableEnded).toBe(false);
  await jest.advanceTimersByTimeAsync(1);
  expect(res.writableEnded).toBe(true);
});

it("streams that begin together do not keep reading together", async () => {
  const all = Array.from({ length: 20 }, () => open());
  const together = async () => {
    const before = all.map(({ world }) => world.reads);
    await jest.advanceTimersByTimeAsync(100);
    return all.filter(({ world }, i) => world.reads > before[i]!).length;
  };
  await settle();
  let most = 0;
  for (let t = 0; t < 10_000; t += 100) most = Math.max(most, await together());
  expect(most).toBeLessThan(15);
});

it("a change after the order was read, but before its stream was registered, is sent at once", async () => {
  const { world, chunks } = open();
  world.now = () => Promise.resolve(order("PENDING", "CONFIRMED"));
  await settle();
  expect(chunks.join("")).toContain("CONFIRMED");
});

it("a notification while the order is being read leads to one more read", async () => {
  const { world, chunks, changed } = open();
  await settle();
  let respond = (_order: Order): void => undefined;
  world.now = () => new Promise((resolve) => (respond = resolve));
  changed();
  await settle();
  changed();
  changed();
  world.now = () => Promise.resolve(order("PENDING", "CONFIRMED"));
  const before = world.reads;
  respond(order("PENDING"));
  await settle();
  expect(world.reads - before).toBe(1);
  expect(chunks.join("")).toContain(`id: 2\nevent: status\ndata: {"status":"CONFIRMED","at":"${at}","reason":null}\n\n`);
});

it("while orders is unavailable a stream stays open, and sends the missed changes afterwards", async () => {
  const { world, res, chunks } = open();
  world.now = () => Promise.reject(problem("SERVICE_UNAVAILABLE", "unavailable"));
  await jest.advanceTimersByTimeAsync(60_000);
  expect(res.writableEnded).toBe(false);
  world.now = () => Promise.resolve(order("PENDING", "CANCELLED"));
  await jest.advanceTimersByTimeAsync(5_000);
  expect(chunks.join("")).toContain("CANCELLED");
  expect(res.writableEnded).toBe(true);
});

it("a client that does not read is disconnected", async () => {
  const { world, res, changed } = open();
  await settle();
  world.now = () => Promise.resolve(order("PENDING", ...Array<Status>(300).fill("CONFIRMED")));
  expect(res.destroyed).toBe(false);
  changed();
  await settle();
  expect(res.destroyed).toBe(true);
  expect(jest.getTimerCount()).toBe(0);
});

it("after the last stream is closed there is no timer, and a change leads to no read", async () => {
  const { world, stream, changed } = open();
  await settle();
  expect(jest.getTimerCount()).toBe(2); // the stream's, and the one that checks sessions
  stream.close();
  expect(jest.getTimerCount()).toBe(0);
  const before = world.reads;
  changed();
  await jest.advanceTimersByTimeAsync(60_000);
  expect(world.reads).toBe(before);
});

it("when the session ends or the caller's role changes, a stream ends within half a second, without reading the order", async () => {
  const { world, res } = open();
  await settle();
  const before = world.reads;
  await jest.advanceTimersByTimeAsync(1_000);
  expect(res.writableEnded).toBe(false);
  world.isCurrent = false;
  await jest.advanceTimersByTimeAsync(500);
  expect([res.writableEnded, world.reads]).toEqual([true, before]);
});

it("when a stream is closed during a read, nothing more is sent", async () => {
  const { world, stream, chunks, changed } = open();
  await settle();
  let respond = (_order: Order): void => undefined;
  world.now = () => new Promise((resolve) => (respond = resolve));
  changed();
  await settle();
  stream.close();
  const before = chunks.length;
  respond(order("PENDING", "CANCELLED"));
  await settle();
  expect([chunks.length, jest.getTimerCount()]).toEqual([before, 0]);
});

it("a gateway with the maximum number of open streams refuses further ones from any address", () => {
  const verifier = { verify: () => Promise.resolve(caller), refresh: () => Promise.resolve(), isCurrent: () => true };
  const streams = new Streams({ order: () => Promise.resolve(order("PENDING")) }, verifier, noSnapshots, { ofAll: 4 });
  const follow = (n: number) =>
    streams.open(
      new ServerResponse(new IncomingMessage(new Socket())),
      { order: order("PENDING"), caller: { ...caller, id: testId(n) }, seen: 1 },
      "token",
      { address: `192.0.2.${n}`, user: testId(n), isWanted: () => true },
    );
  for (const n of [1, 2, 3, 4]) follow(n);
  expect(() => follow(5)).toThrow("no stream can be opened here now");
});

it("a client that does not read the end of its stream is disconnected after 30 s", async () => {
  const { streams, res } = open();
  await settle();
  streams.end();
  await jest.advanceTimersByTimeAsync(29_000);
  expect(res.destroyed).toBe(false);
  await jest.advanceTimersByTimeAsync(2_000);
  expect(res.destroyed).toBe(true);
});
