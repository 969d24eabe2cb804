import { Client as Postgres } from "pg";
import { databaseNames } from "../../../config";
import { Client } from "../../../testkit/client";
import { killProcesses, startProcess } from "../../../testkit/node-process";
import { createDatabases, dropDatabases, type TestDatabases } from "../../../testkit/databases";
import { uniqueNamespace } from "../../../testkit/shop";

let databases: TestDatabases;

beforeAll(async () => {
  databases = await createDatabases();
});
afterAll(async () => {
  await killProcesses();
  await dropDatabases(databases);
});

it("a search_path in a database URL applies to migrations, statements, the model and lists alike", async () => {
  const inSchema = `?options=${encodeURIComponent("-c search_path=shop,public")}`;
  const urls: Record<string, string> = {};
  for (const [name, variable] of databaseNames()) {
    const database = new Postgres(databases[name].url);
    await database.connect();
    await database.query("create schema shop");
    await database.end();
    urls[variable] = databases[name].url + inSchema;
  }
  const node = await startProcess({ env: { ...urls, NAMESPACE: uniqueNamespace() } });
  const client = new Client(node.url ?? "");
  await client.signUp();
  const product = await client.createProduct();
  const order = await client.order(product, 1);
  expect(await client.decided(String(order.body["id"]))).toMatchObject({ status: "CONFIRMED" });
  expect((await client.patch(`/products/${product}`, { price: 2 })).status).toBe(200); // by the model
  expect((await client.get("/products")).body["items"]).toHaveLength(1);
  expect((await client.get("/orders")).body["items"]).toHaveLength(1);
  for (const [name] of databaseNames()) {
    const database = new Postgres(databases[name].url);
    await database.connect();
    const { rows } = await database.query(`select to_regclass('shop.${name}') is not null as here, to_regclass('public.${name}') as there`);
    await database.end();
    expect([name, rows]).toEqual([name, [{ here: true, there: null }]]);
  }
});
