import path from "node:path";
import { Client as Postgres } from "pg";
import { migrate } from "../../mixins/migrations";
import { timeOfId, UUID_V7 } from "../../testkit/ids";
import { createDatabase, type TestDatabase } from "../../testkit/postgres";
import { ROOT } from "../../testkit/repository";

/** Statements that insert a hundred rows. */
const INSERTS = {
  users: "insert into users (email, email_key, password_hash) select gen_random_uuid(), gen_random_uuid(), ''",
  products: "insert into products (name, price_cents, quantity, seller_id) select 'Lamp', 1, 1, gen_random_uuid()",
  orders:
    "insert into orders (user_id, idempotency_key, request_hash, lines_digest, total_cents) select gen_random_uuid(), gen_random_uuid(), '', '', 1",
} as const;
const SERVICES = ["users", "products", "orders"] as const;

const open: TestDatabase[] = [];
afterEach(() => Promise.all(open.splice(0).map((database) => database.drop())));

async function migrated(service: (typeof SERVICES)[number]): Promise<TestDatabase> {
  const database = await createDatabase(service);
  open.push(database);
  await migrate({ url: database.url, directory: path.join(ROOT, "services", service, "migrations") });
  return database;
}

async function query<T extends object>(url: string, sql: string): Promise<T[]> {
  const client = new Postgres(url);
  await client.connect();
  return (await client.query<T>(sql).finally(() => client.end())).rows;
}

/** Copies a database including the state of its sequences, as a restored backup would have it. */
async function backupOf({ url }: TestDatabase): Promise<TestDatabase> {
  const name = new URL(url).pathname.slice(1);
  const copy = Object.assign(new URL(url), { pathname: `/${name}_restored` }).href;
  const execute = (sql: string) => query(process.env.TEST_POSTGRES_URL ?? "", sql);
  await execute(`create database ${name}_restored template ${name}`);
  const backup = { url: copy, drop: () => execute(`drop database ${name}_restored with (force)`).then(() => undefined) };
  open.push(backup);
  return backup;
}

describe.each(SERVICES)("an id of %s", (service) => {
  it("is a UUIDv7 of the current millisecond; ten thousand of one statement differ, in every random bit", async () => {
    const { url } = await migrated(service);
    const rows = await query<{ id: string; before: number; after: number }>(
      url,
      `select new_id() as id, extract(epoch from now())::float8 * 1000 as before, extract(epoch from clock_timestamp())::float8 * 1000 as after
       from generate_series(1, 10000)`,
    );
    const ids = rows.map(({ id }) => id);
    expect(ids.filter((id) => !UUID_V7.test(id))).toEqual([]);
    expect(new Set(ids).size).toBe(10_000);
    for (const { id, before, after } of rows) {
      expect(timeOfId(id)).toBeGreaterThanOrEqual(Math.floor(before));
      expect(timeOfId(id)).toBeLessThanOrEqual(after);
    }

    const bits = ids.map((id) =>
      BigInt(`0x${id.replaceAll("-", "")}`)
        .toString(2)
        .padStart(128, "0"),
    );
    const fixed = [...Array(128).keys()].filter((i) => new Set(bits.map((text) => text[i])).size === 1);
    expect(fixed.filter((i) => i >= 48)).toEqual([48, 49, 50, 51, 64, 65]); // version and variant
  });

  it("is never repeated after a backup was restored", async () => {
    const database = await migrated(service);
    const insert = async ({ url }: TestDatabase) =>
      (await query<{ id: string }>(url, `${INSERTS[service]} from generate_series(1, 100) returning id`)).map(({ id }) => id);
    const kept = await insert(database);
    const backup = await backupOf(database);
    const lost = await insert(database);
    const made = await insert(backup);
    expect(new Set([...kept, ...lost, ...made]).size).toBe(300);
  });
});
