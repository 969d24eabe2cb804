import { type ServiceName, databaseNames, DATABASES } from "../../config";
import { amqpUrl, connectionPids, deleteLeftovers } from "../../testkit/amqp";
import { until } from "../../testkit/until";
import { Client } from "../../testkit/client";
import { killProcesses, startProcess, type NodeProcess } from "../../testkit/node-process";
import { ADMIN } from "../../testkit/admin";
import { createDatabases, dropDatabases, type TestDatabases } from "../../testkit/databases";
import { uniqueNamespace } from "../../testkit/shop";

const NODES: readonly ServiceName[] = ["api", "users", "products", "products", "orders", "orders"];

/** Six processes over RabbitMQ, as in production. */
describe("the shop as processes over RabbitMQ, two each for products and orders and one each for the others", () => {
  const namespace = uniqueNamespace();
  const ids: string[] = [];
  const nodes: { service: ServiceName; process: NodeProcess }[] = [];
  let databases: TestDatabases | undefined;
  let amqp: string | undefined;
  let client: Client;

  const start = async (service: ServiceName): Promise<void> => {
    const env = {
      TRANSPORTER: amqp ?? "",
      NAMESPACE: namespace,
      OUTBOX_RETRY_MS: "500",
      ...(service === "users" && { ADMIN_EMAIL: ADMIN.email, ADMIN_PASSWORD: ADMIN.password }),
      ...Object.fromEntries(
        databaseNames().flatMap(([name]) => (name === service ? [[DATABASES[name], databases?.[name].url ?? ""]] : [])),
      ),
    };
    const process = await startProcess({ services: [service], env });
    ids.push(process.nodeId);
    nodes.push({ service, process });
  };
  const processes = (service: ServiceName): NodeProcess[] => nodes.filter((node) => node.service === service).map((node) => node.process);
  const auditIsClean = async (): Promise<boolean> => {
    const admin = await new Client(client.url).login(ADMIN.email, ADMIN.password);
    const { body } = await admin.get("/admin/consistency");
    expect(body["checks"].filter((check: { ok: boolean }) => !check.ok)).toEqual([]);
    return body["in_flight"] === 0;
  };

  beforeAll(async () => {
    amqp = await amqpUrl();
    if (amqp === undefined) return; // the reason has been logged
    databases = await createDatabases();
    await Promise.all(NODES.map(start));
    client = new Client(processes("api")[0]?.url ?? "");
    await until("the whole shop is healthy", async () => (await client.get("/health")).status === 200, 30_000);
    await client.signUp();
  }, 90_000);

  afterAll(async () => {
    await killProcesses();
    if (amqp !== undefined) await deleteLeftovers(amqp, namespace);
    await dropDatabases(databases);
  });

  it("RabbitMQ lists each node by its id", async () => {
    for (const id of amqp === undefined ? [] : ids) {
      const connections = await connectionPids(id);
      if (connections !== undefined) expect(connections).toHaveLength(1);
    }
  });

  it("an order is confirmed without another request, and the stock falls from 50 to 47", async () => {
    if (amqp === undefined) return;
    const product = await client.createProduct({ quantity: 50 });
    const placed = await client.order(product, 3);
    expect(placed.body).toMatchObject({ status: "PENDING" });
    expect(await client.decided(String(placed.body["id"]))).toMatchObject({ status: "CONFIRMED" });
    expect(await client.quantityOf(product)).toBe(47);
  });

  it("200 buyers of 100 units: exactly 100 are confirmed, and nothing is left", async () => {
    if (amqp === undefined) return;
    const product = await client.createProduct({ quantity: 100 });
    const placed = await Promise.all(Array.from({ length: 200 }, () => client.buy(product, 1)));
    const accepted = placed.filter(({ status }) => status === 201).map(({ body }) => String(body["id"]));
    const decided = await Promise.all(accepted.map((id) => client.decided(id)));
    expect(decided.filter((order) => order["status"] === "CONFIRMED")).toHaveLength(100);
    expect(await client.quantityOf(product)).toBe(0);
    await until("everything is settled", auditIsClean);
  });

  it("every products node is killed while 50 orders arrive: after the restart all accepted ones are decided, and the audit finds nothing", async () => {
    if (amqp === undefined) return;
    const product = await client.createProduct({ quantity: 1_000 });
    const accepted: string[] = [];
    const ordering = Promise.all(
      Array.from({ length: 50 }, async (_, i) => {
        const { status, body } = await client.order(product, 1, { headers: { "Idempotency-Key": `buyer-${i}` } });
        if (status === 201) accepted.push(String(body["id"]));
        else expect(status).toBe(503);
      }),
    );
    await until("some were accepted", () => accepted.length > 0);
    await Promise.all(processes("products").map((process) => process.kill()));
    await ordering;
    for (const node of nodes.splice(0)) if (node.service !== "products") nodes.push(node);
    await start("products");

    for (const id of accepted) expect(await client.decided(id, 40_000)).toMatchObject({ status: "CONFIRMED" });
    expect(await client.quantityOf(product)).toBe(1_000 - accepted.length);
    await until("everything is settled", auditIsClean);
  }, 90_000);

  it("SIGTERM stops every node with exit code 0", async () => {
    expect(await Promise.all(nodes.map(({ process }) => process.stop()))).toEqual(nodes.map(() => 0));
  });
});
