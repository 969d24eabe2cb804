import type { AddressInfo, Server } from "node:net";
import { ServiceBroker, type Middleware } from "moleculer";
import { Client as Postgres } from "pg";
import { metricsOf } from "../../broker/metrics";
import { serveOps } from "../../broker/ops";
import { databaseNames, loadConfig } from "../../config";
import { brokerOptions } from "../../moleculer.config";
import { Proxy } from "../../testkit/proxy";
import { until } from "../../testkit/until";
import type { Client } from "../../testkit/client";
import { testId } from "../../testkit/ids";
import { killProcesses, startProcess } from "../../testkit/node-process";
import { scrape } from "./prometheus";
import { createDatabases, dropDatabases, variablesOf, type TestDatabases } from "../../testkit/databases";
import { startShop, uniqueNamespace, type Shop } from "../../testkit/shop";

async function served(broker: ServiceBroker): Promise<string> {
  const server: Server = await serveOps(broker, 0, "127.0.0.1");
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Reads of products wait until the test releases them. */
let open = (): void => undefined;
let gate = Promise.resolve();
const gated: Middleware = {
  name: "Gated",
  localAction: (next, action) =>
    async function (ctx) {
      if (action.name === "products.getMany") await gate;
      return next.call(this, ctx) as unknown;
    },
};

describe("the metrics of a node with every service", () => {
  let shop: Shop;
  let ops: Promise<string>;
  let client: Client;
  let product: string;
  let orders: Postgres;

  beforeAll(async () => {
    shop = await startShop({
      broker: { middlewares: [gated], created: (broker) => void (ops = served(broker)) },
      limits: { admission: { slots: 16, places: 16 } },
    });
    client = shop.client();
    await client.signUp();
    product = await client.createProduct();
    orders = new Postgres(shop.databases.orders.url);
    await orders.connect();
  });
  afterAll(async () => {
    open();
    await orders.end();
    await shop.stop();
  });

  const page = async () => scrape(await ops);
  const http = (method: string, route: string, status: number) =>
    `shop_http_request_duration_seconds_count{method="${method}",route="${route}",status="${status}"}`;
  const action = (name: string, result: string) => `shop_action_duration_seconds_count{action="${name}",result="${result}"}`;
  /** By how much each of these metrics grows during some work. */
  async function growth(names: string[], act: () => Promise<unknown>): Promise<number[]> {
    const before = await page();
    await act();
    // a request is counted after its response has been sent, which the client may notice earlier
    await until("all requests have their responses", async () => (await page()).get("shop_http_requests_under_way") === 0);
    const after = await page();
    return names.map((name) => (after.get(name) ?? 0) - (before.get(name) ?? 0));
  }

  it("describe the process, the transporter and each pool", async () => {
    const samples = await page();
    const names = ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds", "nodejs_eventloop_lag_p99_seconds"]; // prettier-ignore
    for (const name of names) expect(samples.get(name)).toBeGreaterThan(0);
    expect(samples.get("shop_transporter_connected")).toBe(1);
    expect(samples.get("shop_transporter_blocked")).toBe(0);
    for (const [service] of databaseNames()) {
      for (const [pool, most] of [
        ["main", 10],
        ["lists", 3],
      ] as const) {
        expect(samples.get(`shop_database_connections_max{service="${service}",pool="${pool}"}`)).toBe(most);
        expect(samples.get(`shop_database_connections_in_use{service="${service}",pool="${pool}"}`)).toBeGreaterThanOrEqual(0);
        expect(samples.get(`shop_database_waiting{service="${service}",pool="${pool}"}`)).toBe(0);
      }
    }
  });

  it("count each request by its route, including the most frequent read and errors", async () => {
    const names = [
      http("GET", "/products/:id", 200),
      http("HEAD", "/products/:id", 200),
      http("GET", "/products/:id", 404),
      http("POST", "/orders", 201),
      http("POST", "/orders", 401),
      http("POST", "/orders", 400),
      http("PUT", "/products/:id", 405),
    ];
    const grown = await growth(names, async () => {
      for (let i = 0; i < 3; i++) await client.get(`/products/${product}`);
      await client.request("HEAD", `/products/${product}`);
      await client.get(`/products/${testId(999_999)}`);
      await client.order(product, 1);
      await client.post("/orders", {}, { token: "none" });
      await client.post("/orders", undefined, { raw: "{" });
      await client.request("PUT", `/products/${product}`, {});
    });
    expect(grown).toEqual([3, 1, 1, 1, 1, 1, 1]);
  });

  it("count actions by result, in cumulative buckets", async () => {
    const names = [action("orders.createMany", "ok"), action("users.token", "INVALID_CREDENTIALS"), action("products.list", "VALIDATION_ERROR")]; // prettier-ignore
    const grown = await growth(names, async () => {
      await client.order(product, 1);
      await client.post("/token", { email: "nobody@shop.test", password: "whatever" });
      await shop.node("products").call("products.list", { sort: "?" }).catch(() => undefined); // prettier-ignore
    });
    expect(grown).toEqual([1, 1, 1]);
    const samples = await page();
    const buckets = [...samples].filter(
      ([name]) => name.startsWith("shop_action") && name.includes("bucket") && name.includes("createMany"),
    );
    expect(buckets).toHaveLength(13);
    expect(buckets.map(([, n]) => n)).toEqual(buckets.map(([, n]) => n).sort((a, b) => a - b));
    expect(buckets.at(-1)?.[1]).toBe(samples.get(names[0]!));
  });

  it("show the number of pending and parked outbox rows, and the age of the oldest", async () => {
    await until("no row is pending", async () => (await page()).get("shop_outbox_pending") === 0);
    expect((await page()).get("shop_outbox_oldest_pending_seconds")).toBe(0);
    await orders.query(
      `with o as (
         insert into orders (user_id, idempotency_key, request_hash, lines_digest, total_cents) select new_id(), 'waits ' || n, 'x', 'x', 1 from generate_series(1, 5) n
         returning id, idempotency_key
       )
       insert into outbox (subject, event, payload, state, created_at, attempts, next_attempt_at)
       select id, 'order.created', '{}', case idempotency_key when 'waits 1' then 'PARKED' else 'PENDING' end,
         now() - interval '90 s', 1, now() + interval '1 hour' from o`,
    );
    const samples = await page();
    expect(samples.get("shop_outbox_pending")).toBe(4);
    expect(samples.get("shop_outbox_parked")).toBe(1);
    expect(samples.get("shop_outbox_oldest_pending_seconds")).toBeGreaterThan(89);
    expect(samples.get("shop_outbox_oldest_pending_seconds")).toBeLessThan(120);
    await orders.query("update outbox set state = 'SETTLED', settled_at = now() where payload = '{}'");
    expect((await page()).get("shop_outbox_pending")).toBe(0);
  });

  it("do not grow with made-up paths and methods", async () => {
    const ask = (i: number) => client.request(i % 2 ? "GET" : ["PROPFIND", "PURGE", "LOCK"][i % 3]!, `/${i}/nothing/${i}`);
    await ask(0);
    await ask(1);
    const names = async (): Promise<string[]> => [...(await page()).keys()].filter((name) => name.startsWith("shop_"));
    const asked = "users.checkSessions"; // called every second, and the first call may be late
    await until("all periodic calls have been made", async () => (await names()).some((name) => name.includes(asked)));
    const before = await names();
    const grown = await growth([http("GET", "none", 404), http("other", "none", 404)], async () => {
      for (let i = 0; i < 1_000; i += 20) await Promise.all(Array.from({ length: 20 }, (_, j) => ask(i + j)));
    });
    expect(grown).toEqual([500, 500]);
    expect(await names()).toEqual(before);
  });

  it("show the requests in progress and count those refused at once", async () => {
    gate = new Promise((resolve) => (open = resolve));
    const counted = ["shop_http_refused_total", http("GET", "/products/:id", 429), http("GET", "/products/:id", 404)];
    const grown = await growth(counted, async () => {
      const all = Array.from({ length: 60 }, () => client.get(`/products/${testId(999_999)}`));
      await until(
        "the gateway has as many requests as one address may have",
        async () => (await page()).get("shop_http_requests_under_way") === 20,
      );
      await until("the surplus is refused", async () => (await page()).get("shop_http_refused_total")! >= 40);
      open();
      await Promise.all(all);
    });
    expect(grown).toEqual([40, 40, 20]);
  });

  it("lack only the outbox when its database is gone", async () => {
    await orders.end();
    const before = await page();
    await shop.databases.orders.drop();
    const after = await page();
    const lost = [...before.keys()].filter((name) => name.startsWith("shop_") && !after.has(name));
    expect(lost).toEqual(["shop_outbox_pending", "shop_outbox_parked", "shop_outbox_oldest_pending_seconds"]);
  });
});

describe("the metrics of a node as a process", () => {
  let databases: TestDatabases | undefined;
  let line: Proxy | undefined;
  afterAll(async () => {
    await killProcesses();
    line?.close();
    await dropDatabases(databases);
  });

  it("are served on its OPS_PORT, within two seconds even if a database hangs", async () => {
    databases = await createDatabases();
    line = await Proxy.to(databases.orders.url, 5432);
    const urls = { ...variablesOf(databases), ORDERS_DATABASE_URL: line.url };
    const node = await startProcess({ env: { NAMESPACE: uniqueNamespace(), ...urls } });
    await fetch(`${node.url}/health`);
    const request = 'shop_http_request_duration_seconds_count{method="GET",route="/health",status="200"}';
    await until("the request is counted", async () => (await scrape(node.ops)).get(request) === 1, 5_000);
    expect((await scrape(node.ops)).get("shop_outbox_pending")).toBe(0);
    line.freeze();
    const since = performance.now();
    const samples = await scrape(node.ops);
    expect(performance.now() - since).toBeLessThan(2_000);
    expect(samples.has("shop_outbox_pending")).toBe(false);
    expect(samples.get('shop_database_connections_max{service="orders",pool="main"}')).toBe(10);
    expect(await node.stop()).toBe(0);
  });
});

describe("a node that is not ready", () => {
  it("has metrics, and one without an OPS_PORT collects none", async () => {
    const config = { namespace: uniqueNamespace(), logger: false } as const;

    const broker = new ServiceBroker({ ...brokerOptions(loadConfig({})), ...config });
    expect(metricsOf(broker)).toBeUndefined();
    const ops = await served(broker);
    expect((await fetch(`${ops}/ready`)).status).toBe(503);
    expect((await scrape(ops)).get("process_resident_memory_bytes")).toBeGreaterThan(0);
  });
});
