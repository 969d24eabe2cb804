import { Client as Postgres } from "pg";
import type { Service } from "moleculer";
import type { WithDatabase } from "../../../mixins/database.mixin";
import type { Database } from "../../../mixins/database";
import { changedRoles } from "../../../services/users/accounts.store";
import { deleteExpiredEntries, listAudit, recordFailure, recordSession } from "../../../services/users/audit-log.store";
import { testId } from "../../../testkit/ids";
import { startShop, type Shop } from "../../../testkit/shop";

/** So many that reading all of them would be noticed. */
const MANY = 50_000;
const BLOCK_BYTES = 8_192;

let shop: Shop;
let client: Postgres;

beforeAll(async () => {
  shop = await startShop({ nodes: [["users"]] });
  client = new Postgres(shop.databases.users.url);
  await client.connect();
  await client.query(
    `insert into audit_log (actor, action, subject, address)
     select ids[1 + n % 1000], case when n % 2 = 0 then 'login.succeeded' else 'login.failed' end, ids[1 + n % 1000], '198.51.100.1'
     from generate_series(1, $1::int) n, (select $2::text[] as ids) p`,
    [MANY, Array.from({ length: 1_000 }, (_, n) => testId(n + 10))],
  );
  await client.query(
    "insert into users (email, email_key, password_hash, role) select n, n, '', case when n % 5000 = 0 then 'admin' else 'user' end from generate_series(1, $1::int) n",
    [MANY],
  );
  await client.query("analyze");
});
afterAll(async () => {
  await client.end();
  await shop.stop();
});

/** Megabytes of tables and indexes that a store's statements read with a generic plan. */
async function reads(work: (db: Database) => Promise<unknown>): Promise<number> {
  let blocks = 0;
  const query = async (text: string, values: unknown[]): Promise<unknown[]> => {
    await client.query("set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set jit = off"); // like the shop's connections
    const { rows } = await client.query<{ "QUERY PLAN": { Plan: Record<string, number> }[] }>(
      `explain (analyze, buffers, format json) ${text}`,
      values,
    );
    const plan = rows[0]!["QUERY PLAN"][0]!.Plan;
    blocks += (plan["Shared Hit Blocks"] ?? 0) + (plan["Shared Read Blocks"] ?? 0);
    return [];
  };
  await work({ query } as unknown as Database); // the functions use nothing else
  return (blocks * BLOCK_BYTES) / 1_000_000;
}

it.each([{}, { actor: testId(700) }, { subject: testId(700) }, { action: "login.failed" }, { action: "user.disabled" }])(
  "a page of the log filtered by %j reads next to nothing, whether it is the first or a later one",
  async (filter) => {
    expect(await reads((db) => listAudit(db, filter, 20, undefined))).toBeLessThan(1);
  },
);

it("counting the failures of an hour reads no more entries than may be written in an hour", async () => {
  expect(await reads((db) => recordFailure(db, { actor: null, address: "198.51.100.1" }, "login.failed", testId(7)))).toBeLessThan(2);
});

it("counting a user's entries within an hour reads next to nothing of earlier ones", async () => {
  await client.query(
    `insert into audit_log (at, actor, action, subject, address)
     select now() - interval '2 hours', $2, 'login.succeeded', $2, '198.51.100.1' from generate_series(1, $1::int)`,
    [MANY, testId(5)],
  );
  await client.query("analyze audit_log");
  expect(await reads(({ query }) => recordSession(query, { actor: testId(5) }, "login.succeeded", testId(5)))).toBeLessThan(0.2);
});

it("finding expired entries and changed roles reads next to nothing", async () => {
  expect(await reads((db) => deleteExpiredEntries(db))).toBeLessThan(2); // the ten thousand oldest rows
  expect(await reads((db) => changedRoles(db, undefined, 900))).toBeLessThan(0.1);
});

it("disabling a user locks the admins without reading other users", async () => {
  const { db } = shop.node("users").getLocalService("users") as unknown as Service & WithDatabase;
  const text = "select id from users where role = 'admin' and disabled_at is null order by id for no key update";
  expect(await db.query(text)).toHaveLength(MANY / 5_000 + 1);
  expect(await reads((one) => one.query(text, []))).toBeLessThan(0.5);
});
