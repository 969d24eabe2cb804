import { randomUUID } from "node:crypto";
import type { AddressInfo } from "node:net";
import type { Context } from "moleculer";
import { canDeliver } from "../../broker/listeners";
import { serveOps } from "../../broker/ops";
import { healthRoutes } from "../../services/api/routes/health";
import type { Input } from "../../services/api/routing/input";
import { amqpUrl, deleteLeftovers, withChannel } from "../../testkit/amqp";
import { until } from "../../testkit/until";
import type { FlakyProxy } from "../../testkit/flaky-proxy";
import { queueExists, testNodes, type Node, type NodePair } from "./amqp-nodes";
import { killProcesses, startProcess } from "../../testkit/node-process";
import { scrape } from "./prometheus";

afterAll(killProcesses);

testNodes("a node's queues are deleted with its connection, and calls to it are refused at once until it is back", async (pair) => {
  const { a, b } = pair;
  const gone = jest.fn();
  a.broker.localBus.on("$node.disconnected", gone);
  b.line.refuse();
  await until("RabbitMQ has dropped its queues", async () => !(await queueExists(pair.url, b.queue("REQ"))));
  // not REQUEST_TIMEOUT: the call's timeout is 10 s, and the heartbeat timeout is longer
  await expect(pair.call("refused")).rejects.toMatchObject({ type: "REQUEST_REJECTED", retryable: true });
  expect(gone.mock.calls).toMatchObject([[{ unexpected: true }]]);
  b.line.restore();
  await a.broker.waitForServices("worker", 10_000, 20);
  expect(await pair.call("responded")).toBe("responded");
  expect(pair.ran).toEqual(["responded"]);
});

testNodes("an event to a node that has just lost its connection marks the node as unavailable", async (pair) => {
  const { a, b } = pair;
  b.line.refuse();
  await until("RabbitMQ has dropped its queues", async () => !(await queueExists(pair.url, b.queue("EVENT"))));
  expect(a.broker.registry.nodes.get(b.id)).toMatchObject({ available: true });
  await a.broker.emit("thing.happened", { n: 1 });
  await until("a has noticed", () => !a.broker.registry.nodes.get(b.id).available, 5_000); // long before its heartbeats are missed
  b.line.restore();
  await a.broker.waitForServices("worker", 10_000, 20);
  await a.broker.emit("thing.happened", { n: 2 });
  await until("the next event arrives", () => pair.received.length > 0);
  expect(pair.received).toEqual([{ n: 2 }]);
});

testNodes("a node whose last connection RabbitMQ still considers alive gets its queues once RabbitMQ notices the loss", async (pair) => {
  const { b } = pair;
  b.line.abandon();
  await until("b has noticed", () => !b.connected);
  await until("its queues still belong to the old connection", () =>
    b.warned.mock.calls.some(([text]) => /queues of an earlier/.test(String(text))),
  );
  await until("b is back", () => b.connected, 25_000);
  await pair.a.broker.waitForServices("worker", 10_000, 20);
  expect(await pair.call("after")).toBe("after");
  expect(b.line.accepted).toHaveLength(2); // a single new connection, which waited for the queues
});

testNodes("a second node with the same id waits and logs why, and the first one is unaffected", async (pair) => {
  const { node: twin } = await pair.addNode(1, pair.b.id);
  const started = twin.broker.start();
  await until("it logs why", () => twin.warned.mock.calls.some(([text]) => String(text).includes("another node has the same NODE_ID")));
  expect(await pair.call("undisturbed")).toBe("undisturbed");
  expect(twin.connected).toBe(false);
  await pair.b.broker.stop();
  await started;
  expect(twin.connected).toBe(true);
});

testNodes("a node starts although a queue of its id is left from an older version, and the messages in it are dropped", async (pair) => {
  const { node } = await pair.addNode();
  const ran = jest.fn();
  node.broker.createService({ name: "late", actions: { work: ran } });
  const old = { ver: node.broker.PROTOCOL_VERSION, sender: pair.a.id, id: randomUUID(), action: "late.work", meta: {}, level: 1 };
  await withChannel(pair.url, async (channel) => {
    for (const packet of ["REQ", "EVENT"] as const) await channel.assertQueue(node.queue(packet), { durable: true, expires: 120_000 });
    channel.sendToQueue(node.queue("REQ"), Buffer.from(JSON.stringify(old)));
    await channel.checkQueue(node.queue("REQ")); // responds once the message is in the queue
  });
  await node.broker.start();
  await pair.a.broker.waitForServices("late", 10_000, 20);
  await pair.a.broker.call("late.work", { fresh: true });
  expect(ran.mock.calls.map(([ctx]: [Context]) => ctx.params)).toEqual([{ fresh: true }]);
  expect(node.warned).not.toHaveBeenCalled();
});

/** A node with three URLs, and their proxies, beginning with the one in use. */
async function startWithThree(pair: NodePair): Promise<[Node, FlakyProxy, FlakyProxy, FlakyProxy]> {
  const { node, lines } = await pair.addNode(3);
  await node.broker.start();
  const used = lines.findIndex((line) => line.open === 1);
  const [first, second, third] = [0, 1, 2].map((n) => lines[(used + n) % 3]!);
  return [node, first!, second!, third!];
}

testNodes("a node that loses its broker switches to the next of its URLs at once, and skips one that refuses it", async (pair) => {
  const [node, used, next, last] = await startWithThree(pair);
  const failed = jest.spyOn(node.broker.transit!.logger, "warn");
  next.refuse();
  used.refuse();
  await until("it is connected again", () => node.connected && last.open === 1);
  expect(failed).not.toHaveBeenCalledWith("Connection is failed.", expect.anything()); // after which Moleculer itself waits for 5 s
  expect([used, next, last].map((line) => line.accepted.length)).toEqual([1, 1, 1]);
});

testNodes("a connection to an unusable broker that doesn't confirm the close is dropped before the next one is tried", async (pair) => {
  const [node, used, next, last] = await startWithThree(pair);
  jest.spyOn(node.broker.transit!, "makeSubscriptions").mockImplementationOnce(() => {
    next.freeze();
    return Promise.reject(new Error("refused by the test"));
  });
  used.refuse();
  await until("it is connected again", () => node.connected && last.open === 1, 30_000); // RabbitMQ keeps the queues for a while
  expect(node.transporter.connection).not.toBeNull(); // the end of the dropped connection doesn't affect the new one
  await node.broker.waitForServices("worker", 10_000, 20);
  expect(await node.broker.call("worker.work", { label: "after" })).toBe("after");
});

testNodes("a broker that accepts a connection and stays silent delays a node by 5 s", async (pair) => {
  const [node, used, next, last] = await startWithThree(pair);
  next.swallow();
  const from = Date.now();
  used.refuse();
  await until("it is connected again", () => node.connected && last.open === 1);
  expect(Date.now() - from).toBeGreaterThan(4_900); // and not for ever
});

testNodes(
  "while RabbitMQ accepts nothing, a node is not ready and its gauge shows why; pending calls are refused at once",
  async (pair) => {
    const { a } = pair;
    const ops = await serveOps(a.broker, 0, "127.0.0.1");
    const url = `http://127.0.0.1:${(ops.address() as AddressInfo).port}`;
    const look = async () => {
      const gateway = (await healthRoutes(a.broker)["GET /health/ready"]!.read({} as Input)({} as never, {} as never)) as {
        status: number;
        body: { checks: unknown[] };
      };
      const gauges = await scrape(url);
      return {
        ready: (await fetch(`${url}/ready`)).status,
        gateway: gateway.status,
        transporter: gateway.body.checks[1],
        connected: gauges.get("shop_transporter_connected"),
        blocked: gauges.get("shop_transporter_blocked"),
      };
    };
    const sound = { ready: 200, gateway: 200, transporter: { name: "transporter", ok: true }, connected: 1, blocked: 0 };
    expect(await look()).toEqual(sound);
    const waiting = pair.call("waiting", { held: true });
    await until("the action runs", () => pair.ran.length === 1);
    a.transporter.connection?.emit("blocked", "as in a disk alarm");
    await expect(waiting).rejects.toMatchObject({ type: "REQUEST_REJECTED", retryable: true }); // not REQUEST_TIMEOUT
    const detail = "RabbitMQ accepts no messages";
    expect(await look()).toEqual({
      ready: 503,
      gateway: 503,
      transporter: { name: "transporter", ok: false, detail },
      connected: 1,
      blocked: 1,
    });
    expect(canDeliver(a.broker, "thing.happened")).toBe(false);
    a.transporter.connection?.emit("unblocked");
    expect(await look()).toEqual(sound);
    expect(canDeliver(a.broker, "thing.happened")).toBe(true);
    pair.release();
    expect(await pair.call("after")).toBe("after");
    ops.close();
  },
);

test("npm start accepts several URLs, and logs them", async () => {
  const url = await amqpUrl();
  if (!url) return;
  const namespace = `test-${randomUUID().slice(0, 8)}`;
  const node = await startProcess({ services: ["api"], env: { NAMESPACE: namespace, TRANSPORTER: `amqp://u:p@127.0.0.1:1, ${url}` } });
  expect(node.output()).toContain(`connected through RabbitMQ at 127.0.0.1:1, ${new URL(url).host}`);
  expect(await node.stop()).toBe(0);
  await deleteLeftovers(url, namespace);
});
