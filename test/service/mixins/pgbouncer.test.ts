import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import { Client as Postgres } from "pg";
import { databaseNames } from "../../../config";
import { migrate, MigrationRefused } from "../../../mixins/migrations";
import { openSession } from "../../../mixins/session";
import { Client } from "../../../testkit/client";
import { isPgBouncerInstalled, startPgBouncer, type PgBouncer } from "./pgbouncer";
import { createDatabase, type TestDatabase } from "../../../testkit/postgres";
import { killProcesses, startProcess } from "../../../testkit/node-process";
import { ROOT } from "../../../testkit/repository";
import { createDatabases, dropDatabases, variablesOf, type TestDatabases } from "../../../testkit/databases";
import { NO_LIMITS, uniqueNamespace } from "../../../testkit/shop";

const skipped = !isPgBouncerInstalled() && !process.env.CI;
if (skipped) console.warn("skipped: Debian's pgbouncer is not installed");
const describeHere = skipped ? describe.skip : describe;

const directory = path.join(ROOT, "services/orders/migrations");
const server = (): string => process.env.TEST_POSTGRES_URL!;

let databases: TestDatabases;
/** The variables of a node whose databases are behind a PgBouncer. */
const environment = (bouncer: PgBouncer) => ({
  NAMESPACE: uniqueNamespace(),
  ...NO_LIMITS,
  ...Object.fromEntries(databaseNames().map(([service, variable]) => [variable, bouncer.through(databases[service].url)])),
});

describeHere.each(["transaction", "statement"])("PgBouncer in %s mode", (pool_mode) => {
  let bouncer: PgBouncer, database: TestDatabase;
  beforeAll(async () => {
    databases = await createDatabases();
    database = await createDatabase("orders");
    bouncer = await startPgBouncer(server(), { pool_mode });
  });
  afterAll(async () => {
    await killProcesses();
    await bouncer.stop();
    await Promise.all([...Object.values(databases), database].map((one) => one.drop()));
  });

  const refusal = (url: string): string =>
    `the URL of ${new URL(url).pathname.slice(1)} leads to a pooler whose clients share sessions (PgBouncer in transaction or statement mode): ` +
    'set pool_mode = session for this database (docs/operations.md, "PgBouncer").';

  it("is refused with the setting to change, before anything is modified", async () => {
    const refused = migrate({ url: bouncer.through(database.url), directory });
    await expect(refused).rejects.toBeInstanceOf(MigrationRefused);
    await expect(refused).rejects.toThrow(refusal(database.url));
    const client = new Postgres(database.url);
    await client.connect();
    expect((await client.query("select from pg_class where relnamespace = 'public'::regnamespace")).rowCount).toBe(0);
    await client.end();
  });

  it("is refused as well while other clients use the same sessions", async () => {
    const others = [...Array(5).keys()].map(() => new Postgres(bouncer.through(database.url)));
    await Promise.all(others.map((one) => one.connect()));
    let isOver = false;
    const busy = Promise.all(
      others.map(async (one) => {
        while (!isOver) await one.query("select pg_sleep(0.002)");
      }),
    );
    await expect(migrate({ url: bouncer.through(database.url), directory })).rejects.toThrow(refusal(database.url));
    isOver = true;
    await busy;
    await Promise.all(others.map((one) => one.end()));
  });

  it("makes npm start exit with code 1 and that as its last line", async () => {
    const direct = { ...variablesOf(databases), ORDERS_DATABASE_URL: bouncer.through(databases.orders.url) };
    const env = { PATH: process.env.PATH, PORT: "0", BCRYPT_COST: "4", ...environment(bouncer), ...direct };
    const started = promisify(execFile)(process.execPath, ["--import", "tsx", "scripts/start.ts"], { cwd: ROOT, timeout: 60_000, env });
    const { code, stderr } = (await started.catch((error: unknown) => error)) as { code: number; stderr: string };
    expect([code, stderr.trimEnd().split("\n").at(-1)]).toEqual([1, refusal(databases.orders.url)]);
  });
});

describeHere("PgBouncer in session mode", () => {
  let bouncer: PgBouncer;
  beforeAll(async () => {
    databases = await createDatabases();
    bouncer = await startPgBouncer(server(), { pool_mode: "session", default_pool_size: 30 });
  });
  afterAll(async () => {
    await killProcesses();
    await bouncer.stop();
    await dropDatabases(databases);
  });

  it("lets a node start and serve, although it accepts no start-up parameters", async () => {
    const node = await startProcess({ env: environment(bouncer) });
    const buyer = new Client(node.url!);
    await buyer.signUp();
    const product = await buyer.createProduct({ quantity: 1_000 });
    const responses = await Promise.all([...Array(100).keys()].map(() => buyer.buy(product, 1)));
    expect(responses.map(({ status }) => status)).toEqual(responses.map(() => 201));
    for (const { body } of responses) expect((await buyer.decided(String(body["id"])))["status"]).toBe("CONFIRMED");
    expect((await buyer.get("/products")).status).toBe(200);
    expect((await buyer.get("/health")).status).toBe(200);
    expect(await node.stop()).toBe(0);
  });

  it("keeps the settings of a session, and gives the next client a session without them", async () => {
    const limited = new Postgres(bouncer.through(databases.orders.url));
    await limited.connect();
    await openSession(limited, { statement_timeout: 3_000, lock_timeout: 950 });
    const other = new Postgres(bouncer.through(databases.orders.url));
    await other.connect();
    const limits = "select current_setting('statement_timeout') as statement, current_setting('lock_timeout') as lock";
    expect((await other.query(limits)).rows).toEqual([{ statement: "0", lock: "0" }]);
    expect((await limited.query(limits)).rows).toEqual([{ statement: "3s", lock: "950ms" }]);
    await limited.end();
    await other.end();
    const next = new Postgres(bouncer.through(databases.orders.url));
    await next.connect();
    expect((await next.query(limits)).rows).toEqual([{ statement: "0", lock: "0" }]);
    await next.end();
  });

  it("is not mistaken for another mode if it has a single session", async () => {
    const narrow = await startPgBouncer(server(), { pool_mode: "session", default_pool_size: 1 });
    const database = await createDatabase("orders");
    await expect(migrate({ url: narrow.through(database.url), directory })).resolves.toBeUndefined();
    await narrow.stop();
    await database.drop();
  });
});
