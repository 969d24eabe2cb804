import { randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { Client as Postgres } from "pg";
import { explained, type WithDatabase } from "../../../mixins/database.mixin";
import { ListDatabase } from "../../../mixins/database.lists";
import { openSession } from "../../../mixins/session";
import { errorCode } from "../../../broker/errors";
import { startEmbeddedPostgres } from "../../../scripts/embedded-postgres";
import { until } from "../../../testkit/until";
import { allSqlStates } from "../../../testkit/sqlstates";
import type { Client } from "../../../testkit/client";
import { startShop, type Shop } from "../../../testkit/shop";
import { startStandby } from "../../../testkit/standby";

/*
 * The effect of each SQLSTATE, raised by a server, on connections, requests and outbox rows.
 */

/** Repeats docs/decisions/19-sqlstates.md, since the test must not use the table that it tests. */
const DATA = /^2[23]/;
const TRANSIENT = /^(08|25006|25P0[234]|26|28|3D|3F|40|42P01|42703|42704|42883|42501|42P05|53|55|57|58|F0|HV|XX)/;
const DROPPED = /^(08|25|26|40003|42P05|57P|XX)/;

/** One code from each row of the table, and some that are in neither PostgreSQL's list nor the table. */
const ONE_OF_EACH = [
  ...allSqlStates().filter((code, i, all) => all.findIndex((one) => one.startsWith(code.slice(0, 2))) === i),
  ...["25006", "25P02", "25P03", "25P04", "40001", "40P01", "40003", "42601", "42P01", "42703", "42704", "42883", "42501", "42P05"],
  ...["53100", "53200", "53300", "55P03", "57014", "57P01", "57P02", "57P03", "58030", "72000", "P0001", "XX001", "99999", "SHOP1"],
];
const UNKNOWN = /^(72|99|SH)/;
const isTransient = (code: string): boolean => TRANSIENT.test(code) || UNKNOWN.test(code);

let shop: Shop, products: WithDatabase, database: Postgres, orders: Postgres, seller: Client;

beforeAll(async () => {
  shop = await startShop({ env: { OUTBOX_RETRY_MS: "100", OUTBOX_RETRY_MAX_MS: "200" } });
  products = shop.node("products").getLocalService("products") as unknown as WithDatabase;
  seller = shop.client();
  await seller.signUp();
  [database, orders] = [new Postgres(shop.databases.products.url), new Postgres(shop.databases.orders.url)];
  await Promise.all([database.connect(), orders.connect()]);
});
afterAll(async () => {
  await Promise.all([database.end(), orders.end()]);
  await shop.stop();
});

const raise = (code: string): string => `do $$ begin raise exception 'raised' using errcode = '${code}'; end $$`;
const failureOf = (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => "no error",
    (error: unknown) => error,
  );
const PID = "select pg_backend_pid() as pid";
const mainPid = async (): Promise<number> => (await products.db.adhoc<{ pid: number }>(PID))[0]!.pid;
const listPid = async (): Promise<number> => products.lists.read(async (db) => (await db.adhoc<{ pid: number }>(PID))[0]!.pid);

describe("each SQLSTATE of PostgreSQL's list", () => {
  const codes = [...new Set([...allSqlStates(), ...ONE_OF_EACH])];
  const expected = codes.map((code) => ({
    code,
    dropped: DROPPED.test(code),
    response: isTransient(code) ? "SERVICE_UNAVAILABLE" : "INTERNAL_ERROR",
  }));

  it("has the table's response, and keeps or drops its connection of the main pool", async () => {
    const seen = [];
    for (const code of codes) {
      const before = await mainPid();
      const response = errorCode(explained(await failureOf(products.db.adhoc(raise(code)))));
      seen.push({ code, dropped: (await mainPid()) !== before, response });
    }
    expect(seen).toEqual(expected);
    expect(seen.length).toBeGreaterThan(200);
  });

  it("does the same on a connection of lists", async () => {
    const seen = [];
    for (const code of codes) {
      const before = await listPid();
      const response = errorCode(explained(await failureOf(products.lists.read((db) => db.adhoc(raise(code))))));
      seen.push({ code, dropped: (await listPid()) !== before, response });
    }
    expect(seen).toEqual(expected);
  });

  it("does the same on a connection that moleculer-db's adapter uses", async () => {
    const seen = [];
    for (const code of ["23514", "25006", "26000", "40001", "42601", "57P01", "XX000"]) {
      const before = await mainPid();
      const failure = await failureOf(products.adapter.db.query(raise(code)));
      seen.push([code, (await mainPid()) !== before, errorCode(explained(failure))]);
    }
    expect(seen).toEqual([
      ["23514", false, "INTERNAL_ERROR"],
      ["25006", true, "SERVICE_UNAVAILABLE"],
      ["26000", true, "SERVICE_UNAVAILABLE"],
      ["40001", false, "SERVICE_UNAVAILABLE"],
      ["42601", false, "INTERNAL_ERROR"],
      ["57P01", true, "SERVICE_UNAVAILABLE"],
      ["XX000", true, "SERVICE_UNAVAILABLE"],
    ]);
  });
});

it("a request that fails with one gets 503 with Retry-After if it is transient, otherwise 500, and its transaction leaves nothing", async () => {
  await database.query(
    `create function raise_name() returns trigger language plpgsql as $$ begin raise exception 'raised' using errcode = new.name; end $$;
     create trigger raise_name before insert on products for each row when (new.description = 'raises') execute function raise_name()`,
  );
  const seen = [];
  for (const code of ONE_OF_EACH) {
    const { status, headers } = await seller.post("/products", { name: code, description: "raises", price: 1, quantity: 1 });
    seen.push([code, status, headers.has("retry-after")]);
  }
  expect(seen).toEqual(ONE_OF_EACH.map((code) => (isTransient(code) ? [code, 503, true] : [code, 500, false])));
  expect((await database.query("select from products where description = 'raises'")).rowCount).toBe(0);
  await database.query("drop trigger raise_name on products");
});

describe("an outbox row whose order products can't reserve", () => {
  type Row = { order_id: string; state: string; refusals: number; attempts: number };
  const rowsOf = async (ids: string[]): Promise<Row[]> =>
    (await orders.query<Row>("select subject as order_id, state, refusals, attempts from outbox where subject = any($1)", [ids])).rows;

  let product: string;
  beforeAll(async () => {
    product = await seller.createProduct({ quantity: 1_000_000 });
    await database.query(
      `create table faults (units bigint primary key, code text not null);
       create sequence tries; -- which rolls nothing back
       create function raise_fault() returns trigger language plpgsql as $$
         declare fault text := (select code from faults where units = (new.lines -> 0 ->> 'quantity')::bigint);
         begin
           if fault is null then return new; end if;
           perform nextval('tries');
           raise exception 'raised' using errcode = fault;
         end $$;
       create trigger raise_fault before insert on reservations for each row execute function raise_fault()`,
    );
  });
  afterAll(() => database.query("drop trigger raise_fault on reservations; drop table faults"));

  const triesOf = async () => Number((await database.query<{ n: string }>("select nextval('tries') as n")).rows[0]!.n);
  /** @returns the id of an order for which the database raises this code while `units` is in `faults` */
  async function orderRaising(code: string, units: number): Promise<string> {
    await database.query("insert into faults values ($1, $2)", [units, code]);
    const before = await triesOf();
    const { body } = await seller.order(product, units);
    let looks = 0;
    await until(`${code} was raised`, async () => (await triesOf()) > before + ++looks);
    return String(body["id"]);
  }
  const isConfirmed = async (id: string) =>
    (await rowsOf([id]))[0]?.state === "SETTLED" && (await seller.decided(id))["status"] === "CONFIRMED";

  it("is parked after ten refusals if its data violate a rule", async () => {
    const ids = [await orderRaising("22003", 1), await orderRaising("23514", 2)];
    await until("both rows are parked", async () => (await rowsOf(ids)).every(({ state }) => state === "PARKED"));
    expect((await rowsOf(ids)).map(({ refusals }) => refusals)).toEqual([10, 10]);
  });

  it("is refused for no other SQLSTATE, and settled once the database has recovered", async () => {
    const refused: unknown[] = [];
    for (const [i, code] of ONE_OF_EACH.filter((one) => !DATA.test(one)).entries()) {
      const id = await orderRaising(code, i + 10);
      await until("the row is published again", async () => (await rowsOf([id]))[0]!.attempts > 1);
      refused.push(...(await rowsOf([id])).filter(({ refusals, state }) => refusals > 0 || state !== "PENDING"));
      await database.query("delete from faults where code = $1", [code]);
      await until(`the order is confirmed after ${code}`, () => isConfirmed(id));
    }
    expect(refused).toEqual([]);
  });

  it.each(["XX001", "58030", "99999", "42601"])("doesn't delay others if the error may be caused by one order (%s)", async (code) => {
    const unlucky = await orderRaising(code, 3);
    const others = await Promise.all([...Array(20).keys()].map(async () => String((await seller.order(product, 4)).body["id"])));
    for (const id of others) expect((await seller.decided(id))["status"]).toBe("CONFIRMED");
    await database.query("delete from faults where units = 3");
    await until("the order is confirmed, too", () => isConfirmed(unlucky));
  });
});

describe("a prepared statement whose result columns were changed by a migration", () => {
  const READ = "select * from changing"; // which no statement of the shop may use
  beforeEach(() => database.query("drop table if exists changing; create table changing as select 1 as a"));
  afterAll(() => database.query("drop table if exists changing"));
  const addColumn = () => database.query("alter table changing add column b int");

  it("is executed unprepared at once, and its connection is dropped", async () => {
    const before = await mainPid();
    expect(await products.db.query(READ)).toEqual([{ a: 1 }]);
    await addColumn();
    expect(await products.db.query(READ)).toEqual([{ a: 1, b: null }]);
    expect(await mainPid()).not.toBe(before);
  });

  it("leads to one retry of its transaction, although all connections have prepared it", async () => {
    await Promise.all(
      [...Array(10).keys()].map(() => products.db.transaction((query) => query(READ).then(() => query("select pg_sleep(0.2)")))),
    );
    await addColumn();
    let times = 0;
    const rows = await products.db.transaction((query) => {
      times++;
      return query(READ);
    });
    expect([rows, times]).toEqual([[{ a: 1, b: null }], 2]);
  });

  it("is executed unprepared on a connection of lists, which is dropped", async () => {
    const read = () => products.lists.read((db) => db.query(READ));
    const before = await listPid();
    expect(await read()).toEqual([{ a: 1 }]);
    await addColumn();
    expect(await read()).toEqual([{ a: 1, b: null }]);
    expect(await listPid()).not.toBe(before);
  });

  it("is executed unprepared if the session has lost it", async () => {
    expect(await products.db.query(READ)).toEqual([{ a: 1 }]);
    const before = await mainPid();
    await products.db.adhoc("deallocate all");
    expect(await products.db.query(READ)).toEqual([{ a: 1 }]);
    expect(await mainPid()).not.toBe(before);
  });
});

it("columns that are added to every table fail no request", async () => {
  const product = await seller.createProduct({ quantity: 1_000_000 });
  const [{ body: order }] = [await seller.order(product, 1)];
  const id = String(order["id"]);
  const statuses = new Map<string, number>();
  const everything = (): Promise<unknown>[] => {
    const requests = [
      ["POST", "/orders", { items: [{ product_id: product, quantity: 1 }] }],
      ["GET", `/orders/${id}`],
      ["GET", "/orders"],
      ["GET", `/products/${product}`],
      ["GET", "/products"],
      ["GET", `/products/${product}/stock`],
      ["PATCH", `/products/${product}`, { price: 2 }],
      ["POST", `/products/${product}/stock`, { delta: 1 }],
      ["GET", "/me"],
      ["POST", "/register", { email: `${randomUUID()}@shop.test`, password: "correct horse battery" }],
    ] as const;
    return requests.map(async ([method, path, body]) => {
      const { status } = await seller.request(method, path, body);
      if (status >= 400) statuses.set(`${method} ${path}`, status);
    });
  };
  for (let round = 0; round < 3; round++) await Promise.all(everything()); // prepares everything on several connections
  const users = new Postgres(shop.databases.users.url);
  await users.connect();
  const tables = async (client: Postgres) =>
    (
      await client.query<{ name: string }>(
        "select relname as name from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace",
      )
    ).rows;
  for (const client of [users, database, orders])
    for (const { name } of await tables(client)) {
      const under = everything();
      await client.query(`alter table ${name} add column added_by_a_test int`);
      await Promise.all([...under, ...everything()]);
    }
  await users.end();
  expect(Object.fromEntries(statuses)).toEqual({});
  expect((await seller.decided(id))["status"]).toBe("CONFIRMED");
});

describe("a temporarily read-only database", () => {
  const reconnect = (client: Postgres) =>
    client.query("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()");
  const setReadOnly = async (client: Postgres, isReadOnly: boolean): Promise<void> => {
    const name = client.escapeIdentifier(client.database!);
    await client.query(
      `alter database ${name} ${isReadOnly ? "set default_transaction_read_only = on" : "reset default_transaction_read_only"}`,
    );
    if (isReadOnly) await reconnect(client); // as after a failover, since open sessions could still write
  };

  /** The failing checks of /health. */
  async function failing(): Promise<[status: number, checks: unknown[]]> {
    const { status, body } = await seller.get("/health");
    return [status, (body["checks"] as { ok: boolean }[]).filter(({ ok }) => !ok)];
  }

  it.each(["orders", "products"] as const)(
    "%s: orders get 503, reads still work, /health reports it, nothing is parked, and it recovers within 5 s",
    async (which) => {
      const client = which === "orders" ? orders : database;
      const product = await seller.createProduct({ quantity: 1_000 });
      const { body: order } = await seller.order(product, 1);
      await seller.decided(String(order["id"]));
      await setReadOnly(client, true);
      const seen = new Set<number>();
      await until("the sessions are new", async () => (await seller.get(`/products/${product}`)).status === 200);
      for (const end = Date.now() + 2_000; Date.now() < end;) {
        const responses = await Promise.all([...Array(8).keys()].map(() => seller.order(product, 1)));
        for (const { status } of responses) seen.add(status);
        const patch = await seller.patch(`/products/${product}`, { price: 3 });
        if (which === "products") seen.add(patch.status);
      }
      expect([...seen].every((status) => status === 503 || status === 201)).toBe(true);
      if (which === "orders") expect([...seen]).toEqual([503]);
      else expect(seen).toContain(503);
      expect((await seller.get(`/orders/${String(order["id"])}`)).status).toBe(200);
      expect((await seller.get("/products")).status).toBe(200);
      expect(await failing()).toEqual([503, [{ name: `${which} database`, ok: false, detail: "the database is read-only" }]]);
      expect((await seller.get("/health/ready")).status).toBe(200); // this gateway still serves requests
      await setReadOnly(client, false);
      let good = 0;
      await until(
        "20 rounds in a row succeed",
        async () => {
          const round = [
            await seller.order(product, 1),
            await seller.patch(`/products/${product}`, { price: 4 }),
            await seller.get("/products"),
          ];
          good = round.every(({ status }) => status < 300) ? good + 1 : 0;
          return good === 20;
        },
        5_000,
      );
      expect(await failing()).toEqual([200, []]);
      await until(
        "all is settled",
        async () => (await orders.query("select from outbox where state <> 'SETTLED'")).rowCount === parked,
        5_000,
      );
    },
  );

  /** Rows parked by earlier tests. */
  let parked = 0;
  beforeAll(async () => {
    parked = (await orders.query("select from outbox where state = 'PARKED'")).rowCount ?? 0;
  });
});

it("a hot standby is refused with a transient error, in either pool", async () => {
  const folder = await mkdtemp(path.join(tmpdir(), "shop-test-standby-"));
  const primary = await startEmbeddedPostgres({ dataDir: path.join(folder, "primary"), databases: [], settings: { fsync: "off" } });
  const standby = await startStandby(path.join(folder, "primary/postgres"), primary.url("postgres"), folder);
  try {
    const client = new Postgres(standby.url("postgres"));
    await client.connect();
    const refusal = await failureOf(openSession(client, {}));
    await client.end();
    expect([errorCode(explained(refusal)), String(refusal)]).toEqual([
      "SERVICE_UNAVAILABLE",
      "Error: the server is a hot standby, which only reads",
    ]);
    const lists = new ListDatabase({ connectionString: standby.url("postgres") });
    await expect(lists.read((db) => db.query("select 1"))).rejects.toMatchObject({ type: "SERVICE_UNAVAILABLE" });
    await lists.close();
  } finally {
    await standby.stop();
    await primary.stop();
    await rm(folder, { recursive: true });
  }
});
