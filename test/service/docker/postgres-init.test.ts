import { Client as Postgres } from "pg";
import path from "node:path";
import { databaseNames } from "../../../config";
import { migrate } from "../../../mixins/migrations";
import { Cluster, hasPsql, query, withoutPsql, withPsql } from "./cluster";
import { compose } from "./compose-file";
import { ROOT } from "../../../testkit/repository";

let cluster: Cluster;
beforeAll(async () => (cluster = await Cluster.start()), 60_000);
afterAll(() => cluster.stop());

describe.each([
  ["by psql", withPsql],
  ["without psql", withoutPsql],
])("docker/postgres-init.sql %s", (_how, runScript) => {
  let runs = false;

  beforeEach(async () => {
    runs = runScript !== withPsql || (await hasPsql());
    if (runs) await cluster.initialise(runScript);
    else console.warn("skipped: psql 15 or newer is not installed");
  });

  afterEach(() => cluster.reset());

  /** The URL of another database, with the role of this one. */
  const at = (url: URL, database: string): string => Object.assign(new URL(url), { pathname: `/${database}` }).href;

  test("each role owns its database, and can't connect to others: another role's, postgres or template1", async () => {
    if (!runs) return;
    const databases = [...Object.values(cluster.urls).map(({ pathname }) => pathname.slice(1)), "postgres", "template1"];
    for (const role of Object.values(cluster.urls)) {
      for (const database of databases) {
        const url = at(role, database);
        if (url === role.href) await query(url, "create extension pg_trgm; create table mine ()");
        else expect([url, await query(url, "select 1").catch((error: unknown) => error)]).toMatchObject([url, { code: "42501" }]);
      }
    }
  });

  test("each role has a connection limit that leaves the other roles theirs", async () => {
    if (!runs) return;
    const limit = 90;
    const max = /max_connections=(\d+)/.exec(compose()["postgres"]!.command!.join())?.[1];
    expect(databaseNames().length * limit).toBeLessThanOrEqual(Number(max) - 3); // PostgreSQL reserves three for superusers
    const { orders, users } = cluster.urls;
    const clients = Array.from({ length: limit }, () => new Postgres({ connectionString: orders.href }));
    try {
      for (const client of clients) await client.connect();
      await expect(query(orders.href, "select 1")).rejects.toMatchObject({ code: "53300" });
      expect(await query(users.href, "select 1")).toEqual([[1]]);
    } finally {
      await Promise.all(clients.map((client) => client.end()));
    }
  }, 30_000);

  test("a role that had more rights loses them when the script runs again", async () => {
    if (!runs) return;
    const rights = () =>
      cluster.asAdmin(
        "select distinct rolsuper or rolcreatedb or rolcreaterole or rolreplication or rolbypassrls, rolconnlimit from pg_roles where rolname ~ '_svc$'",
      );
    expect(await rights()).toEqual([[false, 90]]);
    await cluster.asAdmin("alter role orders_svc superuser createdb createrole replication bypassrls connection limit -1");
    await cluster.initialise(runScript);
    expect(await rights()).toEqual([[false, 90]]);
  });

  test("a node whose database is missing reports what to run, although its role can't connect to any other", async () => {
    if (!runs) return;
    await cluster.asAdmin("drop database order_db");
    const migrated = migrate({ url: cluster.urls.orders.href, directory: path.join(ROOT, "services/orders/migrations") });
    await expect(migrated).rejects.toThrow('run, as a superuser, create database "order_db" owner "orders_svc"');
  });

  test("run again with a new password, the script sets it and keeps the data; the superuser has none", async () => {
    if (!runs) return;
    const { orders } = cluster.urls;
    await query(orders.href, "create table kept as select 42 as response");
    const before = await cluster.passwords();
    orders.password = "it's-new";
    await cluster.initialise(runScript);

    expect(await query(orders.href, "select response from kept")).toEqual([[42]]);
    const after = await cluster.passwords();
    const scram = expect.stringMatching(/^SCRAM-SHA-256/) as string;
    expect(after).toEqual({ users_svc: scram, products_svc: scram, orders_svc: scram, the_image: null });
    expect(after["orders_svc"]).not.toBe(before["orders_svc"]);
  });
});
