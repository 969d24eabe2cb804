import { randomBytes } from "node:crypto";
import type { Service } from "moleculer";
import { Client as Postgres } from "pg";
import { asSystem, call } from "../../../broker/contract";
import { disable, find, setRole, type AuditEntry } from "../../../contracts/accounts";
import { list } from "../../../contracts/orders";
import { adjust } from "../../../contracts/products";
import { rotateKeys } from "../../../contracts/users";
import { consoleOf } from "../../../scripts/console";
import { until } from "../../../testkit/until";
import type { ApiResponse, Client } from "../../../testkit/client";
import { misspelled, testId } from "../../../testkit/ids";
import { ADMIN } from "../../../testkit/admin";
import { startShop, type Shop } from "../../../testkit/shop";

const PROXY = "203.0.113.7";
const PASSWORD = "correct horse battery";

let shop: Shop;
let admin: Client;
let adminId: string;

beforeAll(async () => {
  shop = await startShop({ nodes: [["api"], ["users"], ["products", "orders"]], env: { TRUST_PROXY: "loopback", REFRESH_GRACE: "0" } });
  admin = await shop.client().login(ADMIN.email, ADMIN.password);
  adminId = String((await admin.get("/me")).body["id"]);
});
afterAll(() => shop.stop());

async function sql<T extends object>(text: string, values: unknown[] = [], service: "users" | "orders" = "users"): Promise<T[]> {
  const database = new Postgres(shop.databases[service].url);
  await database.connect();
  return (await database.query<T>(text, values).finally(() => database.end())).rows;
}
const unique = (): string => `${randomBytes(8).toString("hex")}@shop.test`;
const headers = { "X-Forwarded-For": PROXY, "X-Request-Id": "audited" };
const log = async (query = ""): Promise<AuditEntry[]> =>
  (await admin.get<{ items: AuditEntry[] }>(`/admin/audit-log?limit=100${query}`)).body.items;

/** The entries logged since then, oldest first. */
async function during(work: () => Promise<unknown>): Promise<Partial<AuditEntry>[]> {
  const [last] = await log();
  await work();
  return (await log())
    .filter(({ id }) => id > (last?.id ?? 0))
    .reverse()
    .map(({ id: _id, at: _at, ...entry }) => entry);
}
async function ok(response: Promise<ApiResponse>): Promise<ApiResponse["body"]> {
  const { status, body } = await response;
  expect([status < 300, body]).toEqual([true, body]);
  return body;
}
async function person(): Promise<{ client: Client; id: string; email: string }> {
  const client = shop.client();
  const email = unique();
  const { id } = await ok(client.post("/register", { email, password: PASSWORD }));
  return { client: await client.login(email, PASSWORD), id: String(id), email };
}

describe("an entry is left by", () => {
  const request_id = "audited";

  it("registration, login, logout, each failed login, and a reused refresh token", async () => {
    const client = shop.client();
    const credentials = { email: unique(), password: PASSWORD };
    let id = "";
    const entries = await during(async () => {
      id = String((await ok(client.post("/register", credentials, { headers })))["id"]);
      const first = await ok(client.post("/token", credentials, { headers }));
      await client.post("/token", { ...credentials, password: "wrong" }, { headers });
      await client.post("/token", { email: unique(), password: "wrong" }, { headers });
      await client.post("/register", { ...credentials, password: "another horse" }, { headers });
      const second = await ok(client.post("/token/refresh", { refresh_token: first["refresh_token"] }, { headers }));
      await ok(client.post("/logout", { refresh_token: second["refresh_token"] }, { headers }));
      await ok(client.post("/logout", { refresh_token: second["refresh_token"] }, { headers })); // already ended: logs nothing
      const third = await ok(client.post("/token", credentials, { headers }));
      await ok(client.post("/token/refresh", { refresh_token: third["refresh_token"] }, { headers }));
      for (let i = 0; i < 3; i++) await client.post("/token/refresh", { refresh_token: third["refresh_token"] }, { headers });
    });
    const own = { actor: id, subject: id, request_id };
    expect(entries).toMatchObject([
      { ...own, action: "user.registered", address: PROXY },
      { ...own, action: "login.succeeded", address: PROXY },
      { ...own, action: "login.failed", actor: null, address: PROXY },
      { ...own, action: "login.failed", actor: null, subject: null, address: PROXY },
      { ...own, action: "login.failed", actor: null, address: PROXY },
      { ...own, action: "logout", address: PROXY },
      { ...own, action: "login.succeeded" },
      { ...own, action: "refresh.reused", actor: null, address: PROXY },
    ]);
  });

  it("a password change, and a refused one", async () => {
    const { client, id } = await person();
    const change = (current_password: string) =>
      client.request("PUT", "/me/password", { current_password, new_password: "another horse" }, { headers });
    const entries = await during(async () => {
      expect((await change("wrong")).status).toBe(401);
      await ok(change(PASSWORD));
    });
    expect(entries).toMatchObject([
      { actor: id, subject: id, action: "password.refused", address: PROXY, request_id },
      { actor: id, subject: id, action: "password.changed", address: PROXY, request_id },
    ]);
  });

  it("each change of an account, but not by one that changes nothing or is refused", async () => {
    const { id } = await person();
    const patch = (changes: object) => admin.request("PATCH", `/admin/users/${id}`, changes, { headers });
    const entries = await during(async () => {
      await ok(patch({ disabled: true, role: "admin" }));
      await ok(patch({ disabled: true, role: "admin" }));
      await ok(patch({}));
      await ok(patch({ disabled: false }));
      await ok(patch({ role: "user" }));
      await admin.request("PATCH", `/admin/users/${adminId}`, { role: "user" });
      await ok(admin.get(`/admin/users?email=${ADMIN.email}`));
    });
    const changed = ["user.disabled", "user.promoted", "user.enabled", "user.demoted"];
    expect(entries).toEqual(changed.map((action) => ({ actor: adminId, action, subject: id, address: PROXY, request_id })));
  });

  it("a new signing key, a withdrawn one, and the shop's own first key and admin", async () => {
    const start = await sql("select actor, action, subject from audit_log order by id limit 2");
    expect(start).toMatchObject([
      { actor: "system", action: "key.created" },
      { actor: "system", action: "admin.created", subject: adminId },
    ]);
    const [{ kid: old }] = (await sql<{ kid: string }>("select kid from signing_keys")) as [{ kid: string }];
    const meta = { user: { id: adminId, role: "admin" as const } };
    const [first, second] = await rotated(meta, old);
    expect(first).toMatchObject([{ actor: adminId, action: "key.created", subject: expect.stringMatching(/^[\w-]{43}$/) }]);
    expect(second).toMatchObject([
      { actor: "system", action: "key.deleted", subject: expect.anything() },
      { actor: "system", action: "key.deleted", subject: expect.anything() },
      { actor: "system", action: "key.created", subject: expect.stringMatching(/^[\w-]{43}$/) },
    ]);
    expect(second.map(({ subject }) => subject)).toContain(old);
  }, 30_000);

  async function rotated(meta: object, old: string) {
    const before = await sql<{ id: string }>("select max(id) as id from audit_log");
    const since = (id: unknown) =>
      sql<{ actor: string; action: string; subject: string }>("select actor, action, subject from audit_log where id > $1 order by id", [
        id,
      ]);
    await call(shop.node("users"), rotateKeys, {}, { meta });
    const first = await since(before[0]!.id);
    const middle = await sql<{ id: string }>("select max(id) as id from audit_log");
    await call(shop.node("users"), rotateKeys, { at_once: true }, asSystem());
    const second = await since(middle[0]!.id);
    expect(old).not.toBe(second.at(-1)?.subject);
    await admin.login(ADMIN.email, ADMIN.password);
    await until("the gateway has the new key", async () => (await admin.get("/me")).status === 200);
    return [first, second] as const;
  }

  it("an admin's change of another user's product or order, and of the outbox, but not of their own", async () => {
    const { client, id: seller } = await person();
    const product = await client.createProduct();
    const own = await admin.createProduct();
    const order = String((await client.order(product, 1)).body["id"]);
    await client.decided(order);
    const [row] = await sql<{ id: string }>(
      "update outbox set state = 'PARKED', settled_at = null where subject = $1 and event = 'order.created' returning id",
      [order],
      "orders",
    );
    const entries = await during(async () => {
      for (const id of [own, product]) {
        await ok(admin.patch(`/products/${id}`, { price: 5 }, { headers }));
        await ok(admin.post(`/products/${id}/stock`, { delta: 1 }, { headers }));
        await ok(admin.get(`/products/${id}/stock`, { headers }));
        await ok(admin.get(`/orders?user_id=${seller}`, { headers }));
      }
      await ok(admin.post(`/admin/outbox/${row?.id ?? ""}/replay`, undefined, { headers }));
      await ok(admin.post(`/orders/${order}/cancel`, undefined, { headers }));
      await ok(admin.delete(`/products/${product}`, { headers }));
      await ok(client.patch(`/products/${await client.createProduct()}`, { price: 5 }, { headers }));
    });
    expect(entries).toEqual(
      [
        { action: "product.updated", subject: product },
        { action: "stock.adjusted", subject: product },
        { action: "outbox.replayed", subject: String(row?.id) },
        { action: "order.cancelled", subject: order },
        { action: "product.archived", subject: product },
      ].map((entry) => ({ actor: adminId, address: PROXY, request_id, ...entry })),
    );
  });
});

it("a change that can't be logged is not made", async () => {
  const { client, id, email } = await person();
  const product = await client.createProduct({ quantity: 50 });
  await sql("alter table audit_log rename to elsewhere");
  try {
    const node = shop.node("users");
    await expect(call(node, disable, { id }, asSystem())).rejects.toThrow();
    await expect(call(node, setRole, { id, role: "admin" }, asSystem())).rejects.toThrow();
    expect(await call(node, find, { email }, asSystem())).toMatchObject({ disabled: false, role: "user" });
    await expect(call(node, adjust, { id: product, delta: 1 }, asSystem())).rejects.toThrow();
    expect(await client.quantityOf(product)).toBe(50);
    const missing = unique();
    expect((await client.post("/register", { email: missing, password: PASSWORD })).status).toBe(503);
    await expect(call(node, find, { email: missing }, asSystem())).rejects.toMatchObject({ type: "USER_NOT_FOUND" });
  } finally {
    await sql("alter table elsewhere rename to audit_log");
  }
});

describe("the console", () => {
  it("acts as the system, or as the user that it names", async () => {
    const { id, email } = await person();
    const typed = consoleOf(shop.node("users"));
    expect(await typed.call("users.find", { email: email.toUpperCase() })).toMatchObject({ id, email, role: "user", disabled: false });
    const entries = await during(async () => {
      expect(await typed.call("users.disable", { id }, { meta: { $repl: true } })).toMatchObject({ id, disabled: true });
      expect(await typed.call("users.enable", { id })).toMatchObject({ id, disabled: false });
      expect(await typed.call("users.setRole", { id, role: "admin" })).toMatchObject({ id, role: "admin" });
      expect(await typed.call("users.setRole", { id, role: "user" }, { meta: { user: { id: adminId, role: "admin" } } })).toMatchObject({
        role: "user",
      });
      await expect(typed.call("users.disable", { id }, { meta: { user: { id } } })).rejects.toMatchObject({ type: "FORBIDDEN" });
      await expect(typed.call("users.disable", { id: adminId })).rejects.toMatchObject({ type: "LAST_ADMIN" });
    });
    expect(entries.map(({ actor, action, subject }) => [actor, action, subject])).toEqual([
      ["system", "user.disabled", id],
      ["system", "user.enabled", id],
      ["system", "user.promoted", id],
      [adminId, "user.demoted", id],
    ]);
    expect(await call(typed, list, { all: true, limit: 1 })).toMatchObject({ items: [expect.anything()] });
  });

  it("doesn't affect the node's own calls, or the node itself", async () => {
    const node = shop.node("users");
    const typed = consoleOf(node);
    await expect(node.call("users.disable", { id: testId(1) })).rejects.toMatchObject({ type: "UNAUTHENTICATED" });
    expect([typed.nodeID, typed.getLocalService("users")]).toEqual([node.nodeID, node.getLocalService("users")]);
    typed.createService({ name: "loaded", actions: { disable: (ctx) => ctx.broker.call("users.disable", { id: testId(1) }) } });
    await node.waitForServices("loaded");
    await expect(node.call("loaded.disable")).rejects.toMatchObject({ type: "UNAUTHENTICATED" });
  });
});

describe("failed logins", () => {
  const fill = (n: number, address: string | null, age = "1 minute") =>
    sql(
      `insert into audit_log (at, action, address, request_id) select now() - $3::interval, 'login.failed', $2, 'filled' from generate_series(1, $1::int)`,
      [n, address, age],
    );
  const fail = (address: string) =>
    shop
      .client()
      .post("/token", { email: unique(), password: "wrong" }, { headers: { "X-Forwarded-For": address, "X-Request-Id": "filled" } });
  const actions = async (address: string, n: number) =>
    (
      await during(async () => {
        for (let i = 0; i < n; i++) expect((await fail(address)).status).toBe(401);
      })
    ).map(({ action }) => action);

  afterEach(() => sql("delete from audit_log where address like '198.51.100.%' or request_id = 'filled'"));

  /** Ages the oldest entry by an hour. */
  const leave = (address: string | null) =>
    sql(
      `update audit_log set at = at - interval '1 hour' where id = (
         select min(id) from audit_log where action = 'login.failed' and address is not distinct from $1 and at > now() - interval '1 hour'
       )`,
      [address],
    );

  it("from one address are logged up to 60 times an hour; then one entry records that more are omitted", async () => {
    await fill(58, "198.51.100.1");
    expect(await actions("198.51.100.1", 5)).toEqual(["login.failed", "login.failed", "failures.omitted"]);
    expect(await actions("198.51.100.2", 2)).toEqual(["login.failed", "login.failed"]);
    await sql("update audit_log set at = at - interval '1 hour' where address = '198.51.100.1'");
    expect(await actions("198.51.100.1", 1)).toEqual(["login.failed"]);
  });

  it("that continue for hours are still logged: one for each entry that becomes an hour old, and one gap per hour", async () => {
    await fill(60, "198.51.100.1");
    expect(await actions("198.51.100.1", 2)).toEqual(["failures.omitted"]);
    for (let i = 0; i < 3; i++) {
      await leave("198.51.100.1");
      expect(await actions("198.51.100.1", 2)).toEqual(["login.failed"]);
    }
    await sql("update audit_log set at = at - interval '1 hour' where address = '198.51.100.1' and action = 'failures.omitted'");
    expect(await actions("198.51.100.1", 2)).toEqual(["failures.omitted"]);
  });

  it("from all addresses are logged up to 3,600 times an hour; then one entry without an address records the gap", async () => {
    const [now] = await sql<{ n: number }>("select count(*)::int as n from audit_log where action in ('login.failed', 'password.refused')");
    await fill(3_599 - now!.n, null);
    const entries = await during(async () => {
      for (const address of ["198.51.100.3", "198.51.100.4", "198.51.100.5"]) await fail(address);
    });
    expect(entries.map(({ action, address }) => [action, address])).toEqual([
      ["login.failed", "198.51.100.3"],
      ["failures.omitted", null],
    ]);
    for (let i = 0; i < 3; i++) {
      await leave(null);
      expect(await actions("198.51.100.3", 2)).toEqual(["login.failed"]);
    }
  });
});

describe("logins and logouts", () => {
  const fill = (n: number, action: string, user: string) =>
    sql(`insert into audit_log (action, actor, subject) select $2, $3, $3 from generate_series(1, $1::int)`, [n, action, user]);
  const hoursPass = (user: string, action: string, n: number) =>
    sql(
      `update audit_log set at = at - interval '1 hour' where id in (
         select id from audit_log where subject = $1 and action = $2 and at > now() - interval '1 hour' order by id limit $3
       )`,
      [user, action, n],
    );
  const actions = async (work: () => Promise<unknown>) => (await during(work)).map(({ action }) => action);

  it("of one user are logged up to 60 times an hour each; then one entry records that more are omitted, and other users' are still logged", async () => {
    const [{ client, id, email }, other] = [await person(), await person()];
    const logIn = async (n: number, who = email) => {
      for (let i = 0; i < n; i++) await ok(client.post("/token", { email: who, password: PASSWORD }));
    };
    await fill(58, "login.succeeded", id); // and one by the user's first login
    expect(await actions(() => logIn(4))).toEqual(["login.succeeded", "sessions.omitted"]);
    expect(await actions(() => logIn(2, other.email))).toEqual(["login.succeeded", "login.succeeded"]);

    await hoursPass(id, "login.succeeded", 1);
    expect(await actions(() => logIn(2))).toEqual(["login.succeeded"]);
    await hoursPass(id, "sessions.omitted", 1);
    expect(await actions(() => logIn(2))).toEqual(["sessions.omitted"]);
  });

  it("and password changes and reused tokens have separate limits, and don't suppress entries of another kind", async () => {
    const { client, id, email } = await person();
    await fill(60, "login.succeeded", id);
    const end = async () => {
      const { refresh_token } = await ok(client.post("/token", { email, password: PASSWORD }));
      await ok(client.post("/logout", { refresh_token }));
    };
    const reuse = async () => {
      const { refresh_token } = await ok(client.post("/token", { email, password: PASSWORD }));
      for (let i = 0; i < 2; i++) await client.post("/token/refresh", { refresh_token });
    };
    const change = () => ok(client.request("PUT", "/me/password", { current_password: PASSWORD, new_password: PASSWORD }));
    const all = async () => {
      for (const one of [end, reuse, change]) await one();
    };
    expect(await actions(all)).toEqual(["sessions.omitted", "logout", "refresh.reused", "password.changed"]);
    for (const action of ["logout", "refresh.reused", "password.changed"]) await fill(59, action, id);
    expect(await actions(all)).toEqual([]);
  });
});

describe("the log", () => {
  it("is listed newest first, page by page, completely or filtered, with each entry once", async () => {
    const { client, id, email } = await person();
    for (let i = 0; i < 5; i++) await client.login(email, PASSWORD);
    const pages = async (filter: string): Promise<AuditEntry[]> => {
      const found: AuditEntry[] = [];
      for (let path: string | undefined = `/admin/audit-log?limit=2${filter}`; path !== undefined;) {
        const response: ApiResponse<{ items: AuditEntry[]; next_cursor: string | null }> = await admin.get(path);
        expect(response.status).toBe(200);
        expect(response.headers.get("cache-control")).toBe("no-store");
        found.push(...response.body.items);
        path = /<(.*)>; rel="next"/.exec(response.headers.get("link") ?? "")?.[1];
        expect(path === undefined).toBe(response.body.next_cursor === null);
      }
      expect(found.map((entry) => entry.id)).toEqual([...new Set(found.map((entry) => entry.id))].sort((a, b) => b - a));
      return found;
    };
    const all = await pages("");
    expect(all).toHaveLength((await sql("select from audit_log")).length);
    expect(await pages(`&actor=${id}`)).toEqual(all.filter(({ actor }) => actor === id));
    expect(await pages(`&subject=${id}`)).toEqual(all.filter(({ subject }) => subject === id));
    expect(await pages(`&actor=${id.toUpperCase()}&subject=${id.toUpperCase()}`)).toEqual(
      all.filter(({ actor, subject }) => actor === id && subject === id),
    );
    const failed = all.find((entry) => entry.action === "login.failed" && entry.subject !== null)!;
    expect(await pages(`&subject=${failed.subject}&action=login.succeeded`)).toEqual(
      all.filter(({ subject, action }) => subject === failed.subject && action === "login.succeeded"),
    );
    expect(await pages(`&subject=${id}&actor=${id}&action=login.succeeded`)).toEqual(
      all.filter(({ actor, action }) => actor === id && action === "login.succeeded"),
    );
    expect(await pages("&actor=system")).toEqual(all.filter(({ actor }) => actor === "system"));
    expect(await pages("&action=login.succeeded")).toEqual(all.filter(({ action }) => action === "login.succeeded"));
    expect(all.find(({ actor }) => actor === id)).toMatchObject({ action: "login.succeeded", at: expect.stringMatching(/^\d{4}-.*Z$/) });
  });

  it.each([
    ...misspelled(testId(1)).map((id) => `actor=${encodeURIComponent(id)}`),
    "actor=SYSTEM",
    "action=nothing",
    "subject=",
    "limit=0",
    "cursor=x",
    "who=7",
    `actor=${testId(7)}&actor=${testId(8)}`,
  ])("?%s → 400", async (query) => {
    expect(await admin.get(`/admin/audit-log?${query}`)).toMatchObject({ status: 400, body: { code: "BAD_REQUEST" } });
  });

  it("with the cursor of another filter → 400", async () => {
    const { body } = await admin.get("/admin/audit-log?limit=1");
    const response = await admin.get(`/admin/audit-log?limit=1&actor=${adminId}&cursor=${body["next_cursor"]}`);
    expect(response).toMatchObject({ status: 400, body: { code: "BAD_REQUEST" } });
  });

  it("contains neither e-mails nor secrets", async () => {
    const text = JSON.stringify(await sql("select a.* from audit_log a"));
    expect(text).not.toMatch(/@|horse|eyJ|PRIVATE|wrong/);
    const tokens = await sql<{ hash: string }>("select encode(hash, 'hex') as hash from refresh_tokens");
    for (const { hash } of tokens) expect(text).not.toContain(hash);
  });

  it("is kept for 400 days, and no longer", async () => {
    await sql(
      `insert into audit_log (id, at, action) overriding system value
       select -n, now() - (n || ' days')::interval, 'logout' from generate_series(399, 402) n`,
    );
    const before = (await sql("select from audit_log")).length;
    await (shop.node("users").getLocalService("users") as Service & { cleanUp(): Promise<void> }).cleanUp();
    expect((await sql("select from audit_log")).length).toBe(before - 3);
    expect(await sql("select id::int from audit_log where id < 0")).toEqual([{ id: -399 }]);
    await sql("delete from audit_log where id < 0");
  });
});

it("while users is unavailable, an admin's change of another user's data → 503 and is not made; changes of their own data still work", async () => {
  const { client } = await person();
  const [product, own] = [await client.createProduct({ quantity: 50 }), await admin.createProduct()];
  await shop.node("users").stop();
  expect((await admin.post(`/products/${product}/stock`, { delta: 1 })).status).toBe(503);
  expect(await client.quantityOf(product)).toBe(50);
  expect((await admin.post(`/products/${own}/stock`, { delta: 1 })).status).toBe(200);
});
