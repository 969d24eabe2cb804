import { Type } from "@sinclair/typebox";
import { ServiceBroker, type Middleware, type ServiceSchema } from "moleculer";
import { call, implement, subscribe } from "../../../broker/contract";
import { errorType } from "../../../broker/errors";
import { remainingMs, withRequest } from "../../../broker/request";
import { loadConfig } from "../../../config";
import { action, closed, event } from "../../../contracts/contract";
import { brokerOptions } from "../../../moleculer.config";
import { until } from "../../../testkit/until";
import { uniqueNamespace } from "../../../testkit/shop";

/*
 * Time limits of calls between two nodes.
 */

const slow = action("clock.slow", {
  params: closed({ ms: Type.Number() }),
  result: closed({ left: Type.Number() }),
  idempotent: true,
  timeoutMs: 300,
});
const late = action("clock.late", { params: closed({ ms: Type.Number() }), result: closed({}), timeoutMs: 300 });
const outer = action("clock.outer", { params: closed({}), result: closed({ left: Type.Number() }), timeoutMs: 1_000 });

/** The nodes on which the action was started, in order. */
const started: string[] = [];
const clock: ServiceSchema = {
  name: "clock",
  actions: {
    slow: implement(
      slow,
      async (ctx) => {
        started.push(ctx.broker.nodeID);
        const left = remainingMs();
        await new Promise((resolve) => setTimeout(resolve, ctx.params.ms));
        return { left };
      },
      { bulkhead: { enabled: true, concurrency: 1, maxQueueSize: 10 } },
    ),
    late: implement(late, (ctx) => new Promise((resolve) => setTimeout(resolve, ctx.params.ms, {}))),
  },
};
const relay: ServiceSchema = {
  name: "relay",
  actions: { outer: { ...implement(outer, (ctx) => call(ctx, slow, { ms: 0 })), name: "outer" } },
};

const ticked = event("clock.ticked", closed({}));
/** The remaining time that each listener saw. */
const received: number[] = [];
const listener: ServiceSchema = {
  name: "listener",
  events: {
    "clock.ticked": subscribe(ticked, () => {
      received.push(remainingMs());
      return Promise.resolve();
    }),
  },
};

/** If set, the next call to another node never arrives, and this is called with that node's id. */
let onNextCall: ((nodeID: string) => void) | undefined;
const lossy: Middleware = {
  name: "Lossy",
  remoteAction: (next) =>
    function (ctx) {
      const lose = onNextCall;
      onNextCall = undefined;
      if (lose === undefined) return next.call(this, ctx) as Promise<unknown>;
      lose(ctx.nodeID ?? "");
      return new Promise((resolve) => setTimeout(resolve, 2 * slow.timeoutMs)); // its caller has timed out by then
    },
};

const nodes: ServiceBroker[] = [];
async function start(namespace: string, ...services: ServiceSchema[]): Promise<ServiceBroker> {
  const config = loadConfig({ NAMESPACE: namespace, LOG_LEVEL: "fatal" });
  const options = brokerOptions(config);
  const broker = new ServiceBroker({ ...options, transporter: "Fake", middlewares: [...(options.middlewares ?? []), lossy] });
  for (const schema of services) broker.createService(schema);
  await broker.start();
  nodes.push(broker);
  return broker;
}

beforeEach(() => (started.length = 0));
afterEach(async () => {
  await Promise.all(nodes.splice(0).map((broker) => broker.stop()));
});

async function twoNodes() {
  const namespace = uniqueNamespace();
  await start(namespace, clock);
  const caller = await start(namespace, relay);
  await caller.waitForServices(["clock"], 5_000, 5);
  return { caller };
}

async function threeNodes() {
  const { caller } = await twoNodes();
  await start(caller.namespace, clock);
  await until("the caller knows three nodes", () => caller.registry.getNodeList({ onlyAvailable: true }).length === 3);
  return { caller };
}

describe("a call to another node", () => {
  it("gets the remaining time of its request, if that is less than its contract allows", async () => {
    const { caller } = await twoNodes();
    const { left } = await withRequest("a", performance.now() + 120, () => call(caller, slow, { ms: 0 }));
    expect(left).toBeGreaterThan(0);
    expect(left).toBeLessThanOrEqual(120);
    expect((await call(caller, slow, { ms: 0 })).left).toBeGreaterThan(200);
  });

  it.each([
    ["that had less time than its contract allows, is not counted", 100, true],
    ["that had the time of its contract, is counted: the node gets no further calls", Infinity, false],
  ])("that timed out, %s", async (_what, ms, isCalled) => {
    const { caller } = await twoNodes();
    const calls = [...Array(25).keys()].map(() => withRequest("a", performance.now() + ms, () => call(caller, late, { ms: 400 })));
    for (const { status } of await Promise.allSettled(calls)) expect(status).toBe("rejected");
    const isServed = call(caller, late, { ms: 0 }).then(
      () => "served",
      (error: unknown) => errorType(error),
    );
    expect(await isServed).toBe(isCalled ? "served" : "SERVICE_NOT_AVAILABLE");
  });

  it("is not made if no time is left", async () => {
    const { caller } = await twoNodes();
    await expect(withRequest("a", performance.now() - 1, () => call(caller, slow, { ms: 0 }))).rejects.toMatchObject({
      type: "SERVICE_UNAVAILABLE",
    });
    expect(started).toEqual([]);
  });

  it("whose deadline passed in its node's queue is not started", async () => {
    const { caller } = await twoNodes();
    const first = call(caller, slow, { ms: 250 });
    await until("the first is started", () => started.length === 1);
    const late = withRequest("b", performance.now() + 60, () => call(caller, slow, { ms: 0 }));
    await expect(late).rejects.toMatchObject({ type: "REQUEST_TIMEOUT" });
    await first;
    await call(caller, slow, { ms: 0 }); // queued behind the late one
    expect(started).toHaveLength(2);
  });

  it("that timed out is removed, though no response ever arrives: a stopping node does not wait for it", async () => {
    const { caller } = await twoNodes();
    const { transit } = caller;
    jest.spyOn(transit!, "publish").mockResolvedValueOnce(undefined); // as RabbitMQ drops expired requests
    await expect(call(caller, slow, { ms: 0 })).rejects.toMatchObject({ type: "REQUEST_TIMEOUT" });
    await until("the call is removed", () => transit?.pendingRequests.size === 0);
    const stops = performance.now();
    await caller.stop();
    expect(performance.now() - stops).toBeLessThan(5_000); // otherwise it would wait for ten seconds
    expect(started).toEqual([]);
  });

  it("that timed out is not retried while its node is available", async () => {
    const { caller } = await twoNodes();
    await expect(call(caller, slow, { ms: 450 })).rejects.toMatchObject({ type: "REQUEST_TIMEOUT" });
    await call(caller, slow, { ms: 0 }); // waits for the first to end; a retry would have been queued before it
    expect(started).toHaveLength(2);
  });

  it("is retried on another node if its own was lost", async () => {
    const { caller } = await threeNodes();
    const lost = call(caller, slow, { ms: 200 });
    await until("the call is started", () => started.length === 1);
    caller.registry.nodes.disconnected(started[0]!, true);
    await expect(lost).resolves.toHaveProperty("left");
    expect(new Set(started).size).toBe(2);
  });

  it("that timed out since its node was lost at that moment is retried on another node", async () => {
    const { caller } = await threeNodes();
    const lost: string[] = [];
    onNextCall = (nodeID) => {
      lost.push(nodeID);
      caller.registry.nodes.disconnected(nodeID, true);
    };
    await expect(call(caller, slow, { ms: 0 })).resolves.toHaveProperty("left");
    expect(lost).toHaveLength(1);
    expect(started).toHaveLength(1);
    expect(started).not.toEqual(lost);
  });

  it("is retried with the remaining time of its request", async () => {
    const { caller } = await threeNodes();
    const deadline = performance.now() + 250;
    const lost = withRequest("c", deadline, () => call(caller, slow, { ms: 200 }));
    await until(
      "the call is started, and less time is left than it takes",
      () => started.length === 1 && deadline - performance.now() < 150,
    );
    caller.registry.nodes.disconnected(started[0]!, true);
    await expect(lost).rejects.toMatchObject({ type: "REQUEST_TIMEOUT" });
  });

  it("without a response from an available node is not retried on another node", async () => {
    const { caller } = await threeNodes();
    onNextCall = () => undefined;
    await expect(call(caller, slow, { ms: 0 })).rejects.toMatchObject({ type: "REQUEST_TIMEOUT" });
    expect(started).toEqual([]);
  });
});

describe("an event", () => {
  it("is handled to the end, whatever time is left of the request that emitted it in the same process", async () => {
    received.length = 0;
    const node = await start(uniqueNamespace(), listener);
    await withRequest("a", performance.now() + 100, () => node.emit(ticked.name, {}));
    await until("the event is handled", () => received.length === 1);
    expect(received).toEqual([Infinity]);
  });
});
