import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { ServiceBroker, type ServiceSchema } from "moleculer";
import { Client as Postgres } from "pg";
import { DataTypes } from "sequelize";
import { databaseMixin } from "../../../mixins/database.mixin";
import { migrate, migrateWhenFree, MigrationRefused } from "../../../mixins/migrations";
import { brokerOptions } from "../../../moleculer.config";
import { until } from "../../../testkit/until";
import { createDatabase, type TestDatabase } from "../../../testkit/postgres";
import { ROOT } from "../../../testkit/repository";
import { createDatabases, dropDatabases, variablesOf } from "../../../testkit/databases";
import { startShop, uniqueNamespace } from "../../../testkit/shop";

const FIRST = "001_orders.sql";
const OURS = readdirSync(path.join(ROOT, "services/orders/migrations")).sort();

let database: TestDatabase, client: Postgres, directory: string;
beforeEach(async () => {
  database = await createDatabase("orders");
  client = new Postgres(database.url);
  await client.connect();
  directory = await mkdtemp(path.join(tmpdir(), "shop-migrations-"));
  await cp(path.join(ROOT, "services/orders/migrations"), directory, { recursive: true });
});
afterEach(async () => {
  await client.end();
  await database.drop();
  await rm(directory, { recursive: true });
});

const run = () => migrate({ url: database.url, directory });
const write = (name: string, sql: string) => writeFile(path.join(directory, name), sql);
const first = () => readFile(path.join(directory, FIRST), "utf8");
const applied = async () =>
  (await client.query<{ name: string }>("select name from schema_migrations order by name")).rows.map(({ name }) => name);
/** The contents of a database: its columns, and the rows of these tables. */
async function contents(...tables: string[]): Promise<unknown[]> {
  const columns = "select table_name, column_name, data_type from information_schema.columns where table_schema = 'public' order by 1, 2";
  return Promise.all(
    [columns, ...tables.map((table) => `select * from ${table}`)].map(async (sql) => (await client.query<object>(sql)).rows),
  );
}

describe("a migration", () => {
  it("is applied once, even if its file was checked out with CRLF since", async () => {
    await run();
    const before = await contents("schema_migrations");
    await run();
    await write(FIRST, (await first()).replaceAll("\n", "\r\n"));
    await run();
    expect(await contents("schema_migrations")).toEqual(before);
  });

  it("of a newer version, which has no file here, doesn't block those that have one", async () => {
    await run();
    await client.query("insert into schema_migrations (name, checksum) values ('900_newer.sql', 'x')");
    await write("800_next.sql", "create table next ()");
    await run();
    expect(await applied()).toEqual([...OURS, "800_next.sql", "900_newer.sql"]);
  });

  it("that was edited since is refused with one sentence, and no other is applied", async () => {
    await run();
    const before = await contents("schema_migrations");
    await write(FIRST, `${await first()}-- a word more\n`);
    await write("000_before.sql", "create table before ()");
    await write("800_next.sql", "create table next ()");
    await expect(run()).rejects.toThrow(
      new MigrationRefused(
        `${FIRST} is not the file that was applied to this database: migrations are never edited once they are released. Restore the file, and put the change into a new one.`,
      ),
    );
    expect(await contents("schema_migrations")).toEqual(before);
  });

  it("that was edited is applied if it has not been applied yet", async () => {
    await write(FIRST, `${await first()}create table more ();\n`);
    await run();
    await expect(run()).resolves.toBeUndefined();
    expect((await client.query("select from more")).rowCount).toBe(0);
  });
});

describe("a migration behind an open transaction", () => {
  let operator: Postgres;
  const lines: string[] = [];
  const patiently = (more: Partial<Parameters<typeof migrateWhenFree>[0]> = {}) =>
    migrateWhenFree({ url: database.url, directory, log: (line) => lines.push(line), ...more });
  const blocked = () => `the migration of ${new URL(database.url).pathname.slice(1)} waits for orders, locked by session `;
  beforeEach(async () => {
    await run();
    await write("800_next.sql", "create table before_it (); alter table orders add column next int");
    operator = new Postgres({ connectionString: database.url, application_name: "an operator" });
    await operator.connect();
    await operator.query("begin; select from orders");
    lines.length = 0;
  });
  afterEach(() => operator.end());

  it("is rolled back while that is open, logs per attempt what it waits for, and is applied when that ends", async () => {
    const done = patiently();
    await until("there was one attempt", () => lines.length === 1);
    expect((await client.query("select to_regclass('before_it') as before")).rows).toEqual([{ before: null }]);
    await until("there were two attempts", () => lines.length === 2);
    await operator.query("commit");
    expect(await done).toBe(true);
    const isSuch = /^\d+ \(an operator, role postgres, idle in transaction\); rolled back, next try in [0-2]\.\d s$/;
    for (const line of lines.slice(0, 2)) {
      expect(line.slice(0, blocked().length)).toBe(blocked());
      expect(line.slice(blocked().length)).toMatch(isSuch);
    }
    expect(lines.at(-1)).toBe("applied migration 800_next.sql");
    expect(await applied()).toEqual([...OURS, "800_next.sql"]);
  });

  it("fails in time with one sentence, if there is a time limit", async () => {
    const refused = patiently({ giveUpAfterMs: 1_000 });
    await expect(refused).rejects.toBeInstanceOf(MigrationRefused);
    await expect(refused).rejects.toThrow(
      /^the migration of .* waits for orders, locked by session \d+ \(.*\): end that session, or migrate later\.$/,
    );
    expect(await applied()).toEqual([...OURS]);
  });

  it("is not retried when its node stops", async () => {
    let isWanted = true;
    const done = patiently({ isWanted: () => isWanted });
    await until("there was one attempt", () => lines.length === 1);
    isWanted = false;
    expect(await done).toBe(false);
  });
});

it("a node with a new migration waits behind an open transaction: requests to an older node don't, and it becomes ready afterwards", async () => {
  const shop = await startShop();
  const operator = new Postgres(shop.databases.orders.url);
  const newer = new ServiceBroker({ ...brokerOptions({ ...shop.config, nodeId: uniqueNamespace() }), logger: false });
  try {
    const buyer = shop.client();
    await buyer.signUp();
    const product = await buyer.createProduct({ quantity: 100_000 });
    await operator.connect();
    await operator.query("begin; select from orders, outbox");
    await write("800_next.sql", "alter table orders add column next int; alter table outbox add column next int");
    const model = { name: "orders", define: { id: { type: DataTypes.UUID, primaryKey: true } } };
    const mixin = databaseMixin({ service: "orders", url: shop.databases.orders.url, migrations: directory, model });
    newer.createService({ name: "newer", mixins: [mixin] } as ServiceSchema);

    let isReady = false;
    const started = newer.start().then(() => (isReady = true));
    const statuses = new Set<number>();
    const request = async (work: () => Promise<{ status: number }>): Promise<void> => {
      statuses.add((await work()).status);
    };
    for (const end = Date.now() + 6_000; Date.now() < end;)
      await Promise.all([...Array(4).keys()].flatMap(() => [request(() => buyer.order(product, 1)), request(() => buyer.get("/orders"))]));
    expect([...statuses].sort()).toEqual([200, 201]); // one that waited for the migration longer than for its own time limit would get 503
    expect(isReady).toBe(false);
    await operator.query("commit");
    await started;
    await operator.query("select next from orders limit 1");
    await request(() => buyer.order(product, 1));
    expect([...statuses].sort()).toEqual([200, 201]);
  } finally {
    await operator.end();
    await newer.stop();
    await shop.stop();
  }
});

describe("a role with few privileges, as on a managed server", () => {
  const role = `shop_${uniqueNamespace()}`;
  let url: string;
  beforeEach(async () => {
    await client.query(`revoke connect on database "${client.database ?? ""}" from public; create role "${role}" login password 'secret'`);
    url = Object.assign(new URL(database.url), { username: role, password: "secret" }).href;
  });
  afterEach(() => client.query(`drop owned by "${role}"; drop role "${role}"`));

  const products = path.join(ROOT, "services/products/migrations");
  const access = () => [
    `grant connect on database "${client.database ?? ""}" to "${role}"`,
    `grant usage, create on schema "public" to "${role}"`,
  ];

  const REFUSAL = /^Error: the role \S+ lacks a privilege .*: run, as a superuser in that database, (.+)$/;

  it.each([
    ["is not installed", "select", 'create extension "pg_trgm"'],
    [
      "is in a schema of its own",
      "create schema extensions; create extension pg_trgm schema extensions",
      `grant usage on schema "extensions" to "${role}"`,
    ],
  ])("is refused with the statement to run, and migrates when all were run, if pg_trgm %s", async (_where, prepare, last) => {
    await client.query(prepare);
    const statements: string[] = [];
    let refusal: unknown;
    do {
      refusal = await migrate({ url, directory: products }).then(
        () => undefined,
        (error: unknown) => error,
      );
      const statement = REFUSAL.exec(String(refusal))?.[1];
      if (statement === undefined) break;
      statements.push(statement);
      await client.query(statement);
    } while (statements.length < 4);
    expect([refusal, statements]).toEqual([undefined, [...access(), last]]);
    const tables = await client.query("select schemaname, tableowner from pg_tables where tablename = 'products'");
    expect(tables.rows).toEqual([{ schemaname: "public", tableowner: role }]);
  });

  it("is refused with the statement that creates its database, if that is missing", async () => {
    const missing = Object.assign(new URL(url), { pathname: "/missing" }).href;
    await expect(migrate({ url: missing, directory })).rejects.toThrow(
      `database "missing" is missing and this role can't create it (permission denied to create database): ` +
        `run, as a superuser, create database "missing" owner "${role}"`,
    );
  });
});

it("a migration finds pg_trgm in a schema that is not in the search_path, and creates its tables where they were before", async () => {
  await client.query("create schema extensions; create extension pg_trgm schema extensions");
  await migrate({ url: database.url, directory: path.join(ROOT, "services/products/migrations") });
  const { rows } = await client.query("select schemaname from pg_tables where tablename in ('products', 'schema_migrations')");
  expect(rows).toEqual([{ schemaname: "public" }, { schemaname: "public" }]);
});

/** A database as version 0.1.0 left it. */
const OLD = `
  create table schema_migrations (name text primary key, applied_at timestamptz not null default now());
  create table orders (id bigint generated always as identity primary key, status text not null);
  insert into schema_migrations (name) values ('${FIRST}');
  insert into orders (status) values ('CONFIRMED')`;
const refusal = (): string =>
  `${new URL(database.url).pathname.slice(1)} was made by version 0.1.0, whose ids can't be carried over: start with an empty database (docs/operations.md, "Upgrades"). ` +
  "Drop it, or with the embedded PostgreSQL delete its data directory (.data).";

describe("a database of version 0.1.0", () => {
  it("is refused with instructions, and stays unchanged", async () => {
    await client.query(OLD);
    const before = await contents("schema_migrations", "orders");
    const refused = run();
    await expect(refused).rejects.toBeInstanceOf(MigrationRefused);
    await expect(refused).rejects.toThrow(refusal());
    expect(await contents("schema_migrations", "orders")).toEqual(before);
  });

  it("is distinguished from another tool's migration table, which is refused as such", async () => {
    await client.query("create table schema_migrations (version text primary key)");
    await expect(run()).rejects.toThrow(
      new MigrationRefused(
        `${new URL(database.url).pathname.slice(1)} has a table schema_migrations that is not ours: give the service a database of its own.`,
      ),
    );
  });

  it.each(["start", "migrate"])("makes npm run %s exit with code 1 and that as its last line, without a stack", async (script) => {
    await client.query(OLD);
    const others = await createDatabases();
    try {
      const env = {
        PATH: process.env.PATH,
        NAMESPACE: uniqueNamespace(),
        PORT: "0",
        BCRYPT_COST: "4",
        ...variablesOf({ ...others, orders: database }),
      };
      const ended = promisify(execFile)(process.execPath, ["--import", "tsx", `scripts/${script}.ts`], { cwd: ROOT, timeout: 60_000, env });
      const { code, stderr } = (await ended.catch((error: unknown) => error)) as { code: number; stderr: string };
      expect([code, stderr.trimEnd().split("\n").at(-1)]).toEqual([1, refusal()]);
      expect(stderr).not.toMatch(/^\s+at /m);
    } finally {
      await dropDatabases(others);
    }
  });
});
