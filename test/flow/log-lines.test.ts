import { Proxy } from "../../testkit/proxy";
import { amqpUrl, deleteLeftovers } from "../../testkit/amqp";
import { until } from "../../testkit/until";
import { Client } from "../../testkit/client";
import { killProcesses, startProcess } from "../../testkit/node-process";
import { createDatabases, dropDatabases, variablesOf, type TestDatabases } from "../../testkit/databases";
import { uniqueNamespace } from "../../testkit/shop";

let databases: TestDatabases;
let orderDatabase: Proxy;
let env: Record<string, string>;

beforeAll(async () => {
  databases = await createDatabases();
  orderDatabase = await Proxy.to(databases.orders.url, 5432);
  env = variablesOf(databases);
  env["ORDERS_DATABASE_URL"] = orderDatabase.url;
});
afterEach(() => killProcesses());
afterAll(async () => {
  orderDatabase.close();
  await dropDatabases(databases);
});

interface Line {
  level: string;
  message: string;
}

describe("LOG_FORMAT=json", () => {
  it("makes every line that a node prints an object, from its start to its stop", async () => {
    const warning = encodeURI(
      `data:text/javascript,import{isMainThread}from"worker_threads";isMainThread&&setTimeout(()=>process.emitWarning("canary"),1_000)`,
    );
    const node = await startProcess({
      env: { ...env, NAMESPACE: uniqueNamespace(), LOG_FORMAT: "json", NODE_OPTIONS: `--import=${warning}` },
    });
    await new Client(node.url ?? "").signUp();
    await until("the warning is logged", () => node.output().includes("canary"));
    expect(await node.stop()).toBe(0);
    const lines = node.output().split("\n").filter(Boolean);
    expect(lines.map((line) => JSON.parse(line) as Line)).toContainEqual(
      expect.objectContaining({ level: "warn", message: "Warning: canary" }),
    );
    expect(lines.map((line) => JSON.parse(line) as Line)).toContainEqual(
      expect.objectContaining({ level: "info", message: expect.stringMatching(/^The shop is ready after .* on node /) }),
    );
  });

  it("also that of a crash, with its stack", async () => {
    const crash = encodeURI(
      `data:text/javascript,import{isMainThread}from"worker_threads";isMainThread&&process.on("SIGUSR2",()=>Promise.reject(new Error("canary")))`,
    );
    const node = await startProcess({
      env: { ...env, NAMESPACE: uniqueNamespace(), LOG_FORMAT: "json", NODE_OPTIONS: `--import=${crash}` },
    });
    expect(await node.stop("SIGUSR2")).toBe(1);
    const last = node.output().split("\n").filter(Boolean).at(-1) ?? "";
    expect(JSON.parse(last)).toMatchObject({ level: "fatal", message: expect.stringMatching(/^Error: canary\n {4}at /) });
  });

  it("also those of a configuration that is refused", async () => {
    const started = startProcess({ env: { ...env, LOG_FORMAT: "json", PORT: "eighty" } });
    const output = await started.then(
      () => "it started",
      (error: unknown) => String(error),
    );
    const [, line = ""] = /^(\{.*\})$/m.exec(output) ?? [];
    expect(JSON.parse(line)).toMatchObject({ level: "fatal", message: expect.stringContaining('PORT is "eighty"') });
  });
});

it("a client that disconnects in the middle of a stream is logged, and a failing health check that is polled is not", async () => {
  const node = await startProcess({ env: { ...env, NAMESPACE: uniqueNamespace(), LOG_FORMAT: "json" } });
  const client = new Client(node.url ?? "");
  await client.signUp();
  const { body } = await client.order(await client.createProduct(), 1);
  const id = String(body["id"]);
  const leave = new AbortController();
  const stream = await fetch(`${client.url}/orders/${id}/events`, {
    headers: { Authorization: `Bearer ${client.token ?? ""}` },
    signal: leave.signal,
  });
  expect(stream.status).toBe(200);
  leave.abort();
  await until("the stream is logged", () => /GET \/orders\/[^ ]*\/events 200 [\d.]+ ms, disconnected by the client/.test(node.output()));

  orderDatabase.close();
  await until("the shop is unhealthy", async () => (await fetch(`${client.url}/health`)).status === 503);
  const before = node.output().length;
  for (let n = 0; n < 5; n++) expect((await fetch(`${client.url}/health`)).status).toBe(503);
  const since = node
    .output()
    .slice(before)
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Line);
  expect(since.filter(({ level, message }) => level !== "info" && message.includes("health"))).toEqual([]);
});

it("a node that hosts a part of the shop says so, its lines name it, and polling /health logs no warning", async () => {
  const amqp = await amqpUrl();
  if (amqp === undefined) return; // said why
  const NAMESPACE = uniqueNamespace();
  const id = `${NAMESPACE}-api`;
  const node = await startProcess({ services: ["api"], env: { NAMESPACE, TRANSPORTER: amqp, LOG_FORMAT: "short", NODE_ID: id } });
  try {
    expect(node.output()).toMatch(new RegExp(`^This node is ready after .*: api on node ${id}$`, "m"));
    expect(node.output()).not.toMatch(/The shop is ready|stops everything/);
    for (let n = 0; n < 3; n++) expect((await fetch(`${node.url ?? ""}/health`)).status).toBe(503);
    expect(node.output()).not.toContain(" WARN ");
    await fetch(`${node.url ?? ""}/products`);
    await until("its request is logged", () => new RegExp(`INFO +${id} \\S+ GET /products`).test(node.output()));
  } finally {
    await node.stop();
    await deleteLeftovers(amqp, NAMESPACE, [node.nodeId]);
  }
});
