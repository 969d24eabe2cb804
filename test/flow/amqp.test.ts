import { randomUUID } from "node:crypto";
import { MAX_PACKET_BYTES } from "../../broker/amqp.transporter";
import { closeConnection, connectionPids, withChannel } from "../../testkit/amqp";
import { until } from "../../testkit/until";
import { RETRYABLE, testNodes, type NodePair } from "./amqp-nodes";

const RECONNECT_MS = 5_000; // fixed by Moleculer

testNodes("calls, nested calls and events reach another node", async (pair) => {
  expect(await pair.call("plain")).toBe("plain");
  // the remaining timeout of a nested call is no integer
  expect(await pair.b.broker.call("front.relay", { label: "nested" }, { timeout: 5_000 })).toBe("nested");
  await pair.a.broker.emit("thing.happened", { n: 1 });
  await until("the event arrives", () => pair.received.length > 0);
  expect(pair.received).toEqual([{ n: 1 }]);
  expect(pair.ran).toEqual(["plain", "nested"]);
  expect(pair.b.line.accepted).toHaveLength(1);
});

/** Each returns how many connections the node has made afterwards: 2, or 1 if the loss can't be caused here. */
const losses: [string, (pair: NodePair) => number | Promise<number>][] = [
  [
    "its socket is destroyed",
    ({ b }) => {
      b.breakSocket();
      return 2;
    },
  ],
  [
    "RabbitMQ closes its connection",
    async ({ b }) => {
      const pids = await connectionPids(b.id);
      if (!pids) {
        console.warn("skipped: rabbitmqctl can't be used here");
        return 1;
      }
      expect(pids).toHaveLength(1);
      for (const pid of pids) await closeConnection(pid);
      return 2;
    },
  ],
  [
    "an error closes its channel",
    async ({ b }) => {
      await expect(b.transporter.channel?.checkQueue("missing")).rejects.toThrow("NOT_FOUND");
      return 2;
    },
  ],
  [
    "RabbitMQ cancels its consumer",
    async (pair) => {
      const channel = await pair.b.transporter.connection!.createChannel();
      channel.deleteQueue(pair.b.queue("REQ")).catch(() => undefined); // the node's connection may end before the response
      return 2;
    },
  ],
];

for (const [loss, lose] of losses)
  testNodes(`a node responds again after ${loss}, and requests that ran meanwhile ran once`, async (pair) => {
    const { b } = pair;
    // deliveries are numbered from 1; after these, the next delivery's number is invalid on a new channel
    for (let n = 0; n < 20; n++) await pair.call("before");
    const held = pair.call("held", { held: true, timeout: 30_000 });
    await until("the action runs", () => pair.ran.includes("held"));
    pair.ran.length = 0;
    const connections = await lose(pair);
    await b.untilReconnected(connections);
    pair.release();
    expect(await held).toBe("held");
    // one after the other: the first may get through before RabbitMQ refuses a stale acknowledgement
    for (const label of ["1", "2", "3"]) expect(await pair.call(label)).toBe(label);
    expect(pair.ran).toEqual(["1", "2", "3"]);
    expect(b.line.open).toBe(1);
    expect(b.line.accepted).toHaveLength(connections);
    expect(b.transporter.bindings).toHaveLength(5);
  });

testNodes("while RabbitMQ is unavailable, calls are refused as retryable, and pending ones time out", async (pair) => {
  const { a, b } = pair;
  const lost = jest.fn();
  a.broker.localBus.on("$transporter.disconnected", lost);
  const pending = pair.call("pending", { held: true, timeout: 1_000 });
  await until("the action runs", () => pair.ran.length === 1);
  for (const { line } of [a, b]) line.refuse();
  await expect(pending).rejects.toMatchObject({ type: "REQUEST_TIMEOUT" });
  await until("both nodes have noticed", () => !a.connected && !b.connected);
  // at once: a call that waited for its timeout would be rejected with another type
  await expect(pair.call("refused")).rejects.toMatchObject(RETRYABLE);
  await expect(a.broker.emit("thing.happened", {}, { throwError: true })).rejects.toMatchObject(RETRYABLE);
  await until("a has retried without success", () => a.line.accepted.length > 1);
  await expect(pair.call("refused")).rejects.toMatchObject(RETRYABLE);
  for (const { line } of [a, b]) line.restore();
  await until("both nodes are back", () => a.connected && b.connected);
  expect(await pair.call("responded")).toBe("responded");
  expect(pair.ran).toEqual(["pending", "responded"]);
  expect(lost.mock.calls).toEqual([[{ graceFul: false }]]);
});

testNodes("a call on a closing channel, or while RabbitMQ accepts nothing, is refused as retryable", async (pair) => {
  const { connection, channel } = pair.a.transporter;
  connection?.emit("blocked", "as in a memory alarm");
  await expect(pair.call("blocked")).rejects.toMatchObject(RETRYABLE);
  connection?.emit("unblocked");
  expect(await pair.call("unblocked")).toBe("unblocked");
  const closing = channel?.close();
  await expect(pair.call("closing")).rejects.toMatchObject(RETRYABLE);
  await closing;
  await expect(pair.call("closed")).rejects.toMatchObject(RETRYABLE);
  expect(pair.ran).toEqual(["unblocked"]);
});

testNodes("a request that expires in the queue never runs, and one that doesn't expire does", async (pair) => {
  const { b } = pair;
  await b.stopConsuming();
  const stale = pair.call("stale", { timeout: 1_500 });
  const patient = pair.call("patient", { timeout: 30_000 });
  const waiting = async () => (await b.transporter.channel!.checkQueue(b.queue("REQ"))).messageCount;
  await until("both wait in the queue", async () => (await waiting()) === 2, 3_000);
  await expect(stale).rejects.toMatchObject({ type: "REQUEST_TIMEOUT" });
  await until("RabbitMQ has expired it", async () => (await waiting()) === 1, 3_000);
  await b.resumeConsuming();
  expect(await patient).toBe("patient");
  expect(await pair.call("next")).toBe("next");
  expect(pair.ran).toEqual(["patient", "next"]);
});

testNodes("a redelivered request never runs", async (pair) => {
  const { b } = pair;
  const request = {
    ver: pair.a.broker.PROTOCOL_VERSION,
    sender: pair.a.id,
    id: randomUUID(),
    action: "worker.work",
    meta: {},
    level: 1,
  };
  await b.stopConsuming();
  await withChannel(pair.url, async (channel) => {
    for (const label of ["redelivered", "new"]) {
      const content = JSON.stringify({ ...request, params: { label } });
      channel.sendToQueue(b.queue("REQ"), Buffer.from(content));
    }
    await channel.close(); // flushes what is still buffered here
  });
  // delivered but not acknowledged: RabbitMQ redelivers it to the next consumer when this channel closes
  const channel = await b.transporter.connection!.createChannel();
  await until("the request is delivered", async () => Boolean(await channel.get(b.queue("REQ"))));
  await channel.close();
  await b.resumeConsuming();
  expect(await pair.call("next")).toBe("next");
  expect(pair.ran).toEqual(["new", "next"]);
});

testNodes("a connect that fails half-way is closed, and retried once", async (pair) => {
  const { b, url } = pair;
  const exchange = `MOL-${pair.namespace}.PING`;
  const CHANNEL_OPEN = Buffer.from([0, 20, 0, 10]); // class and method
  b.line.cutsAt = (chunk) => chunk.includes(CHANNEL_OPEN);
  b.breakSocket();
  await until("no channel can be opened", () => b.line.accepted.length === 2 && b.line.open === 0);
  b.line.cutsAt = () => false;
  await withChannel(url, async (channel) => {
    await channel.deleteExchange(exchange);
    await channel.assertExchange(exchange, "direct"); // with another type than nodes declare
  });
  await until("no subscription can be made", () => b.line.accepted.length === 3 && b.line.open === 0);
  await withChannel(url, (channel) => channel.deleteExchange(exchange));
  await b.untilReconnected(4);
  expect(await pair.call("after")).toBe("after");
  expect(b.line.open).toBe(1);
  const [, second = 0, third = 0, fourth = 0] = b.line.accepted;
  expect(Math.min(third - second, fourth - third)).toBeGreaterThan(RECONNECT_MS - 100);
});

testNodes("a packet above the limit fails only its own call, and the node stays connected", async (pair) => {
  const { a, b } = pair;
  const sizes: number[] = [];
  for (const { transporter } of [a, b])
    jest.spyOn(transporter.channel!, "sendToQueue").mockImplementation((queue, content, options) => {
      sizes.push(content.length);
      return transporter.channel!.publish("", queue, content, options);
    });
  const logged = jest.spyOn(a.broker.transit!.logger, "error");
  const TOO_MUCH = MAX_PACKET_BYTES + 1;
  const refused = { type: "PACKET_TOO_LARGE", code: 500, retryable: false };

  const [response, request, ...others] = await Promise.allSettled([
    pair.call("r", { size: TOO_MUCH }),
    pair.call("q".repeat(TOO_MUCH)),
    ...["1", "2", "3"].map((label) => pair.call(label)),
  ]);
  expect([response, request]).toMatchObject([
    { status: "rejected", reason: refused },
    { status: "rejected", reason: refused },
  ]);
  expect(others).toMatchObject(["1", "2", "3"].map((value) => ({ status: "fulfilled", value })));
  expect(a.broker.transit!.pendingRequests.size).toBe(0);

  logged.mockClear();
  await expect(a.broker.emit("thing.happened", { text: "e".repeat(TOO_MUCH) }, { throwError: true })).rejects.toMatchObject(refused);
  expect(logged).toHaveBeenCalledWith(expect.stringContaining("thing.happened"), expect.objectContaining(refused));
  await a.broker.emit("thing.happened", { n: 1 });
  await until("the next event arrives", () => pair.received.length > 0);

  expect(await pair.call("x", { size: MAX_PACKET_BYTES - 10_000 })).toHaveLength(MAX_PACKET_BYTES - 10_000);
  expect(pair.received).toEqual([{ n: 1 }]);
  expect(Math.max(...sizes)).toBeLessThanOrEqual(MAX_PACKET_BYTES);
  for (const { line } of [a, b]) expect([line.accepted.length, line.open]).toEqual([1, 1]);
});

testNodes("a node that stops sends the responses that are ready", async (pair) => {
  const response = pair.call("x", { held: true, size: 4_000_000 });
  await until("the action runs", () => pair.ran.length === 1);
  const send = jest.spyOn(pair.b.broker.transit!, "sendResponse");
  pair.release();
  await until("the response is ready", () => send.mock.calls.length === 1);
  await pair.b.broker.stop();
  expect(await response).toHaveLength(4_000_000);
  await until("its connection is closed", () => pair.b.line.open === 0);
});

testNodes("a node whose connection is dead still stops", async ({ b }) => {
  const socket = b.transporter.connection?.connection.stream;
  b.line.freeze();
  await b.broker.stop(); // amqplib itself would wait for ever
  expect(socket?.destroyed).toBe(true);
});

testNodes("a node that stops while RabbitMQ is unavailable does not reconnect", async ({ a, b }) => {
  for (const { line } of [b, a]) line.refuse();
  await until("both have retried without success", () => [a, b].every(({ line, connected }) => line.accepted.length === 2 && !connected));
  await b.broker.stop();
  for (const { line } of [b, a]) line.restore();
  await a.untilReconnected(3); // a retries later than b: when a is back, b would have reconnected already
  expect(b.line.accepted).toHaveLength(2);
  expect(b.connected).toBe(false);
});
