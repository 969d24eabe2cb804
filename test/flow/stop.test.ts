import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { request, type IncomingMessage } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { databaseNames } from "../../config";
import { startEmbeddedPostgres } from "../../scripts/embedded-postgres";
import { readPidFile } from "../../scripts/postgres-binaries";
import { Proxy } from "../../testkit/proxy";
import { until } from "../../testkit/until";
import { Client } from "../../testkit/client";
import { killProcesses, startProcess, type NodeProcess } from "../../testkit/node-process";
import { createDatabases, dropDatabases, variablesOf, type TestDatabases } from "../../testkit/databases";
import { uniqueNamespace } from "../../testkit/shop";

/** The time limit is that of `stop()`: 20 s, less than the 30 s that compose grants. */
describe("SIGTERM to a node whose databases hang", () => {
  let databases: TestDatabases | undefined;
  let lines: Proxy[] = [];
  let node: NodeProcess;
  let client: Client;
  let product: string;

  beforeEach(async () => {
    const made = (databases = await createDatabases());
    lines = await Promise.all(databaseNames().map(([name]) => Proxy.to(made[name].url, 5432)));
    const urls = databaseNames().map(([, variable], i) => [variable, lines[i]?.url ?? ""]);
    node = await startProcess({ env: { NAMESPACE: uniqueNamespace(), ...Object.fromEntries(urls) } });
    client = new Client(node.url ?? "");
    await client.signUp();
    product = await client.createProduct();
    const { body, status } = await client.order(product, 1);
    expect({ status, body }).toMatchObject({ status: 201 });
    expect(await client.decided(String(body["id"]))).toMatchObject({ status: "CONFIRMED" });
  });

  afterEach(async () => {
    await killProcesses();
    for (const line of lines) line.close();
    await dropDatabases(databases);
  });

  const hang = (): void => {
    for (const line of lines) line.freeze();
  };

  /** An order that the gateway has certainly begun to process: it has read the head and responded with 100. */
  async function underWay(): Promise<{ finish: () => void; status: Promise<number | undefined> }> {
    const headers = { Authorization: `Bearer ${client.token ?? ""}`, "Content-Type": "application/json", Expect: "100-continue" };
    const order = request(`${client.url}/orders`, { method: "POST", headers });
    const answered = once(order, "response") as Promise<[IncomingMessage]>;
    order.flushHeaders();
    await once(order, "continue");
    return {
      finish: () => order.end(JSON.stringify({ items: [{ product_id: product, quantity: 1 }] })),
      status: answered.then(([response]) => response.resume().statusCode),
    };
  }

  it("stops it in time, with exit code 0", async () => {
    hang();
    expect(await node.stop()).toBe(0);
  });

  it("is followed by 503 for all requests in flight, and exit code 0 in time", async () => {
    const orders = await Promise.all(Array.from({ length: 20 }, underWay));
    hang();
    for (const { finish } of orders) finish();
    const [code, ...statuses] = await Promise.all([node.stop(), ...orders.map(({ status }) => status)]);
    expect(statuses).toEqual(orders.map(() => 503));
    expect(code).toBe(0);
  });
});

describe("SIGTERM to a gateway behind a load balancer", () => {
  let databases: TestDatabases | undefined;

  afterEach(async () => {
    await killProcesses();
    await dropDatabases(databases);
  });

  it("makes it not ready at once, while it serves new connections for DRAIN_DELAY, and closes each after its response", async () => {
    const made = (databases = await createDatabases());
    const urls = variablesOf(made);
    const node = await startProcess({ env: { ...urls, NAMESPACE: uniqueNamespace(), DRAIN_DELAY: "8" } });
    const ask = async (path: string) => {
      const response = await fetch(`${node.url ?? ""}${path}`);
      await response.arrayBuffer();
      return [response.status, response.headers.get("connection")];
    };
    const client = new Client(node.url ?? "");
    await client.signUp();
    const product = await client.createProduct();

    const since = performance.now();
    const stopped = node.stop();
    await until("it is not ready", async () => (await ask("/health/ready"))[0] === 503, 5_000);
    const { body, status } = await client.order(product, 1);
    expect({ status, body }).toMatchObject({ status: 201 });
    expect(await client.decided(String(body["id"]))).toMatchObject({ status: "CONFIRMED" });
    while (performance.now() - since < 2_000) expect(await ask("/products")).toEqual([200, "close"]);
    expect(await stopped).toBe(0);
    expect(performance.now() - since).toBeGreaterThan(8_000);
  });
});

describe("processes with the embedded PostgreSQL", () => {
  let dataDir: string;
  const postmaster = (): number => readPidFile(path.join(dataDir, "postgres")).pid;

  beforeEach(async () => {
    dataDir = await mkdtemp(path.join(tmpdir(), "shop-test-shared-"));
  });
  afterEach(async () => {
    await killProcesses();
    if (postmaster() > 0) await startEmbeddedPostgres({ dataDir, databases: [] }).then((server) => server.stop());
    await rm(dataDir, { recursive: true });
  });

  it("whose terminals are closed exit with code 0: the first of two leaves the database to the other, which stops it", async () => {
    // variables for other servers, which must not affect the embedded one
    const env = { DATA_DIR: dataDir, PGSSLMODE: "require", PGOPTIONS: "-c default_transaction_read_only=on" };
    const [first, second] = [await startProcess({ env }), await startProcess({ env })];
    expect(await first.stop("SIGHUP")).toBe(0);
    await new Client(second.url ?? "").signUp();
    expect(await second.stop("SIGHUP")).toBe(0);
    expect(postmaster()).toBe(0);
  });

  it("get their database back if its server is killed", async () => {
    const node = await startProcess({ env: { DATA_DIR: dataDir } });
    const client = new Client(node.url ?? "");
    process.kill(postmaster(), "SIGKILL");
    await until("the server runs again", () => node.output().includes("the embedded PostgreSQL runs again"));
    await until("the shop is healthy", async () => (await client.get("/health")).status === 200);
    await client.signUp();
    expect(await node.stop()).toBe(0);
    expect(postmaster()).toBe(0);
  });
});
