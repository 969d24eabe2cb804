import { randomBytes, randomInt } from "node:crypto";
import { Client as Postgres } from "pg";
import type { Database } from "../../../mixins/database";
import { countAttempt, type Limit } from "../../../services/users/attempts.store";
import { isKnownAddress } from "../../../services/users/known-addresses.store";
import type { Logins } from "../../../services/users/logins";
import { Client, type ApiResponse } from "../../../testkit/client";
import { startShop, urlOf, type Shop, type ShopOptions } from "../../../testkit/shop";

/** The limits per account and address; per account; per address. */
const AUTH_LIMIT = 5;
const ACCOUNT_LIMIT = 8;
const ADDRESS_LIMIT = 12;
const REGISTER_LIMIT = 6;
const PASSWORD_LIMIT = 4;
const PASSWORD = "correct horse battery";

let shop: Shop;
let gateways: Client[];

async function open(options: ShopOptions): Promise<void> {
  shop = await startShop(options);
  const hosts = shop.nodes.filter((node) => node.getLocalService("api") as unknown);
  gateways = hosts.map((node) => new Client(urlOf(node)));
}

const users = () => shop.node("users").getLocalService("users") as unknown as { db: Database; cleanUp(): Promise<void> };
const anywhere = (): Client => gateways[randomInt(gateways.length)]!;
const unique = (): string => `${randomBytes(8).toString("hex")}@shop.test`;
const unknownAddress = (): string => `203.0.${randomInt(256)}.${randomInt(256)}`;

const openAccount = (email: string, password: string, from = unknownAddress()): Promise<ApiResponse> =>
  anywhere().post("/register", { email, password }, { headers: { "X-Forwarded-For": from } });
async function register(): Promise<string> {
  const email = unique();
  expect((await openAccount(email, PASSWORD)).status).toBe(201);
  return email;
}
const logIn = (email: string, password: string, from = unknownAddress()): Promise<ApiResponse> =>
  anywhere().post("/token", { email, password }, { headers: { "X-Forwarded-For": from } });
async function inUsers(sql: string): Promise<Record<string, unknown>[]> {
  const database = new Postgres(shop.databases.users.url);
  await database.connect();
  return (await database.query<Record<string, unknown>>(sql).finally(() => database.end())).rows;
}
const times = <T>(n: number, what: () => Promise<T>): Promise<T[]> => Promise.all(Array.from({ length: n }, what));
const count = (responses: ApiResponse[], status: number): number => responses.filter((response) => response.status === status).length;

function expectLimited({ status, headers, body }: ApiResponse): void {
  expect([status, body["code"]]).toEqual([429, "TOO_MANY_REQUESTS"]);
  expect(headers.get("content-type")).toBe("application/problem+json");
  const seconds = Number(headers.get("retry-after"));
  expect(seconds).toBeGreaterThan(0);
  expect(seconds).toBeLessThanOrEqual(60);
}

describe("failed logins, over two gateways behind a proxy and two users nodes", () => {
  beforeAll(() =>
    open({
      nodes: [["api"], ["api"], ["users"], ["users"]],
      env: {
        RATE_LIMIT_AUTH: String(AUTH_LIMIT),
        RATE_LIMIT_ACCOUNT: String(ACCOUNT_LIMIT),
        RATE_LIMIT_ADDRESS: String(ADDRESS_LIMIT),
        RATE_LIMIT_REGISTER: String(REGISTER_LIMIT),
        RATE_LIMIT_PASSWORD: String(PASSWORD_LIMIT),
        TRUST_PROXY: "loopback",
      },
    }),
  );
  afterAll(() => shop.stop());

  describe.each([
    ["an account", register],
    ["an unknown e-mail", () => Promise.resolve(unique())],
  ])("of %s", (_what, who) => {
    it("from one address, after its limit → 429 there, even with the right password, and not elsewhere", async () => {
      const [email, from] = [await who(), unknownAddress()];
      for (let i = 0; i < AUTH_LIMIT; i++) expect((await logIn(email, "wrong", from)).status).toBe(401);
      expectLimited(await logIn(email, "wrong", from));
      expectLimited(await logIn(email.toUpperCase(), PASSWORD, from));
      expect((await logIn(email, "wrong")).status).toBe(401);
      expect((await logIn(await register(), PASSWORD, from)).status).toBe(200);
    });

    it("from all addresses, after its limit → 429, even with the right password, while other users can log in", async () => {
      const email = await who();
      for (let i = 0; i < ACCOUNT_LIMIT; i++) expect((await logIn(email, "wrong")).status).toBe(401);
      expectLimited(await logIn(email, "wrong"));
      expectLimited(await logIn(email.toUpperCase(), PASSWORD));
      expect((await logIn(await register(), PASSWORD)).status).toBe(200);
    });
  });

  it("of an account, all at once: no more passwords than the limit are checked", async () => {
    const [email, from] = [await register(), unknownAddress()];
    const there = await times(20, () => logIn(email, "wrong", from));
    expect([count(there, 401), count(there, 429)]).toEqual([AUTH_LIMIT, 20 - AUTH_LIMIT]);
    const everywhere = await times(30, () => logIn(email, "wrong"));
    expect([count(everywhere, 401), count(everywhere, 429)]).toEqual([ACCOUNT_LIMIT - AUTH_LIMIT, 30 - ACCOUNT_LIMIT + AUTH_LIMIT]);
  });

  it("of an account do not lock out its user at an address with an earlier login", async () => {
    const [email, home] = [await register(), unknownAddress()];
    expect((await logIn(email, PASSWORD, home)).status).toBe(200);
    const refused = await times(30, () => logIn(email, "wrong"));
    expect(count(refused, 429)).toBeGreaterThan(0);
    expectLimited(await logIn(email, PASSWORD));
    expect((await logIn(email, PASSWORD, home)).status).toBe(200);
    const there = await times(AUTH_LIMIT + 1, () => logIn(email, "wrong", home));
    expect([count(there, 401), count(there, 429)]).toEqual([AUTH_LIMIT, 1]); // a known address doesn't bypass the other limits
  });

  it("whose e-mail resembles the key of an account and address count for neither", async () => {
    const [email, home] = [await register(), unknownAddress()];
    for (const made of [`${email} address ${home}`, `${email}","address","${home}`, `${email}"]`])
      await times(AUTH_LIMIT, () => logIn(made, "wrong"));
    expect((await logIn(email, PASSWORD, home)).status).toBe(200);
  });

  it("from an address, for any accounts → 429, while neighbouring addresses can log in", async () => {
    const from = unknownAddress();
    const responses = await times(ADDRESS_LIMIT + 3, () => logIn(unique(), "wrong", from));
    expect([count(responses, 401), count(responses, 429)]).toEqual([ADDRESS_LIMIT, 3]);
    const email = await register();
    expectLimited(await logIn(email, PASSWORD, from));
    expect(
      (
        await logIn(
          email,
          PASSWORD,
          from.replace(/\d+$/, (last) => String((Number(last) + 1) % 256)),
        )
      ).status,
    ).toBe(200);
  });

  it("from the addresses of one IPv6 network count together", async () => {
    const network = `2001:db8:${randomInt(65_536).toString(16)}:7`;
    const responses = await times(ADDRESS_LIMIT + 3, () => logIn(unique(), "wrong", `${network}:${randomInt(65_536).toString(16)}::1`));
    expect(count(responses, 429)).toBe(3);
    expect((await logIn(await register(), PASSWORD, `${network.slice(0, -1)}8::1`)).status).toBe(200);
  });

  it("don't include successful logins, which do not count", async () => {
    const email = await register();
    const from = unknownAddress();
    for (let i = 0; i < 2 * ADDRESS_LIMIT; i++) expect((await logIn(email, PASSWORD, from)).status).toBe(200);
    for (let i = 0; i < AUTH_LIMIT; i++) expect((await logIn(email, "wrong", from)).status).toBe(401);
    expectLimited(await logIn(email, "wrong", from));
  });

  it("don't include concurrent logins with the right password: some may be refused, but none counts, and the next one succeeds", async () => {
    const email = await register();
    const responses = await times(30, () => logIn(email, PASSWORD));
    expect(count(responses, 200)).toBeGreaterThanOrEqual(ACCOUNT_LIMIT);
    expect(count(responses, 200) + count(responses, 429)).toBe(30);
    for (let i = 0; i < ACCOUNT_LIMIT; i++) expect((await logIn(email, PASSWORD)).status).toBe(200);
  });

  it("from a blocked address lock no account, and leave no row", async () => {
    const from = unknownAddress();
    await times(ADDRESS_LIMIT, () => logIn(unique(), "wrong", from));
    const victim = await register();
    const rows = async () => Number((await inUsers("select count(*)::int as rows from login_attempts"))[0]?.["rows"]);
    const before = await rows();
    const responses = await times(2 * ACCOUNT_LIMIT, () => logIn(victim, "wrong", from));
    responses.push(...(await times(20, () => logIn(unique(), "wrong", from))));
    responses.forEach(expectLimited);
    expect(await rows()).toBe(before);
    expect((await logIn(victim, PASSWORD)).status).toBe(200);
  });

  it.each(["203.0.113.7:5", "[2001:db8::7]:5"])("from %s, as some proxies write it, count for that address", async (address) => {
    const responses = await times(ADDRESS_LIMIT + 1, () => logIn(unique(), "wrong", address.replace("7", String(randomInt(10, 100)))));
    expect(count(responses, 429)).toBe(address.startsWith("[") ? 1 : 0); // they share one IPv6 network
    expect((await logIn(await register(), PASSWORD, "203.0.114.7:9")).status).toBe(200);
  });

  it("expire a minute after the first", async () => {
    const email = await register();
    await times(ACCOUNT_LIMIT + 1, () => logIn(email, "wrong"));
    expectLimited(await logIn(email, PASSWORD));
    await inUsers("update login_attempts set since = since - interval '60 s'");
    expect((await logIn(email, PASSWORD)).status).toBe(200);
  });

  it("expire when the database's clock, which was an hour ahead, is set back", async () => {
    const { db } = users();
    const limits = [{ subject: [unique()], limit: 2 }];
    await countAttempt(db, limits);
    await countAttempt(db, limits);
    await inUsers("update login_attempts set since = since + interval '1 hour'");
    for (let n = 0; n < 2; n++) expect((await countAttempt(db, limits)).ok).toBe(true);
    expect(await countAttempt(db, limits)).toEqual({ ok: false, retryAfterSeconds: expect.any(Number) });
  });

  it("taken back for a right password in the next minute don't reduce that minute's count", async () => {
    const { db } = users();
    const limits = [{ subject: [unique()], limit: 2 }];
    const attempt = await countAttempt(db, limits);
    await inUsers("update login_attempts set since = since - interval '61 s'");
    await countAttempt(db, limits);
    if (attempt.ok) await attempt.undo();
    await countAttempt(db, limits);
    expect(await countAttempt(db, limits)).toEqual({ ok: false, retryAfterSeconds: expect.any(Number) });
  });

  it("whose counting fails half-way do not count", async () => {
    const { db } = users();
    const once = (): Limit => ({ subject: [unique()], limit: 1 });
    const [address, account] = [once(), once()];
    await countAttempt(db, [account]);
    const isExempt = () => Promise.reject(new Error("lost"));
    await expect(countAttempt(db, [address, { ...account, isExempt }])).rejects.toThrow("lost");
    expect((await countAttempt(db, [address])).ok).toBe(true);
  });

  describe("at a change of password", () => {
    const change = (client: Client, current_password: string) =>
      client.request("PUT", "/me/password", { current_password, new_password: PASSWORD });

    it("are counted separately: after the limit → 429, and the user can still log in", async () => {
      const email = await register();
      const client = await anywhere().login(email, PASSWORD);
      for (let i = 0; i < PASSWORD_LIMIT; i++) expect((await change(client, "wrong")).status).toBe(401);
      expectLimited(await change(client, PASSWORD));
      expect((await logIn(email, PASSWORD)).status).toBe(200);
      expect((await change(await anywhere().login(await register(), PASSWORD), PASSWORD)).status).toBe(204);
    });

    it("are independent of those at logins: strangers' failed logins don't block a user's change", async () => {
      const email = await register();
      const client = await anywhere().login(email, PASSWORD);
      for (let i = 0; i < ACCOUNT_LIMIT + 1; i++) await logIn(email, "wrong");
      expectLimited(await logIn(email, PASSWORD));
      expect((await change(client, PASSWORD)).status).toBe(204);
    });
  });

  describe("at a registration", () => {
    it("with a taken e-mail count for that account from that address, and not elsewhere", async () => {
      const [email, from] = [await register(), unknownAddress()];
      for (let i = 0; i < AUTH_LIMIT; i++) expect((await openAccount(email, "another password", from)).body["code"]).toBe("EMAIL_TAKEN");
      expectLimited(await openAccount(email, "another password", from));
      expectLimited(await logIn(email, PASSWORD, from));
      expect((await logIn(email, PASSWORD)).status).toBe(200);
    });

    it("with the right password do not count", async () => {
      const [email, from] = [unique(), unknownAddress()];
      await times(REGISTER_LIMIT, () => openAccount(email, PASSWORD, from));
      for (let i = 0; i < AUTH_LIMIT; i++) expect((await logIn(email, "wrong", from)).status).toBe(401);
    });
  });

  it("registrations from one address, after the limit → 429, whatever their outcome; other addresses can register, and all can log in there", async () => {
    const from = unknownAddress();
    const email = await register();
    const responses = await times(REGISTER_LIMIT - 1, () => openAccount(unique(), PASSWORD, from));
    responses.push(await openAccount(email, "another password", from));
    expect([count(responses, 201), count(responses, 409)]).toEqual([REGISTER_LIMIT - 1, 1]);
    expectLimited(await openAccount(unique(), PASSWORD, from));
    expect((await openAccount(unique(), PASSWORD)).status).toBe(201);
    expect((await logIn(email, PASSWORD, from)).status).toBe(200);
  });
});

describe("known addresses", () => {
  beforeAll(() => open({ env: { TRUST_PROXY: "loopback" } }));
  afterAll(() => shop.stop());

  const known = (email: string) =>
    inUsers(
      `select encode(address, 'hex') as address, last_used_at from known_addresses join users on id = user_id where email = '${email}' order by last_used_at`,
    );

  it("are kept as hashes that differ from user to user, once each", async () => {
    const home = unknownAddress();
    const [ada, bob] = [await register(), await register()];
    for (const email of [ada, ada, bob]) expect((await logIn(email, PASSWORD, home)).status).toBe(200);
    expect((await logIn(ada, "wrong")).status).toBe(401);
    const rows = [...(await known(ada)), ...(await known(bob))].map(({ address }) => address as string);
    expect([rows.length, new Set(rows).size, rows.every((row) => /^[0-9a-f]{64}$/.test(row))]).toEqual([2, 2, true]);
  });

  it("are the twenty used last", async () => {
    const email = await register();
    const addresses = Array.from({ length: 22 }, (_, i) => `198.51.100.${i}`);
    for (const from of addresses) expect((await logIn(email, PASSWORD, from)).status).toBe(200);
    const { db, cleanUp } = users();
    const id = String((await inUsers(`select id from users where email = '${email}'`))[0]!["id"]);
    const areKnown = await Promise.all(addresses.map((address) => isKnownAddress(db, id, address)));
    expect(areKnown).toEqual([false, false, ...Array<boolean>(20).fill(true)]);
    await inUsers(`update known_addresses set last_used_at = now() - interval '91 days' where user_id = '${id}'`);
    expect(await isKnownAddress(db, id, addresses[21]!)).toBe(false);
    expect((await logIn(email, PASSWORD, addresses[21])).status).toBe(200);
    await cleanUp();
    expect(await known(email)).toHaveLength(1);
    expect(await isKnownAddress(db, id, addresses[21]!)).toBe(true);
  });
});

describe("a flood of logins from one address", () => {
  beforeAll(() => open({ nodes: [["api"], ["users"]], env: { RATE_LIMIT_ADDRESS: "3", BCRYPT_COST: "12", TRUST_PROXY: "loopback" } }));
  afterAll(() => shop.stop());

  it("hardly reaches users, whatever e-mails it contains, and others can log in meanwhile", async () => {
    const [email, from] = [await register(), unknownAddress()];
    const logins = shop.nodes.flatMap((node) => {
      const service = node.getLocalService("users") as unknown as { logins: Logins } | undefined;
      return service ? [jest.spyOn(service.logins, "logIn")] : [];
    });
    const flood = times(400, () => logIn(unique(), "wrong", from));
    expect((await logIn(email, PASSWORD)).status).toBe(200);
    const responses = await flood;
    const asked = logins.reduce((sum, { mock }) => sum + mock.calls.length, 0);
    for (const spy of logins) spy.mockRestore();
    expect(asked).toBeLessThan(200); // 50 per second of the flood
    expect(count(responses, 401)).toBeLessThanOrEqual(3);
    expect(count(responses, 429)).toBeGreaterThanOrEqual(100);
    responses.filter(({ status }) => status === 429).forEach(expectLimited);
  });
});

describe("without a trusted proxy", () => {
  beforeAll(() => open({ env: { RATE_LIMIT_ADDRESS: "3" } }));
  afterAll(() => shop.stop());

  it("a changing X-Forwarded-For does not help", async () => {
    for (let i = 0; i < 3; i++) expect((await logIn(unique(), "wrong")).status).toBe(401);
    expectLimited(await logIn(unique(), "wrong"));
  });

  it("an address in the body is refused, and X-Forwarded-Proto leads to no HSTS header", async () => {
    expect((await anywhere().post("/token", { email: unique(), password: "wrong", address: "1.2.3.4" })).status).toBe(422);
    const { headers } = await anywhere().get("/products", { headers: { "X-Forwarded-Proto": "https" } });
    expect(headers.get("strict-transport-security")).toBeNull();
  });
});

describe("requests of one client", () => {
  beforeAll(() => open({ env: { RATE_LIMIT: "20", TRUST_PROXY: "127.0.0.1, ::1" } }));
  afterAll(() => shop.stop());

  const from = (address: string, path = "/products/1", proto = "http"): Promise<ApiResponse> =>
    anywhere().get(path, { headers: { "X-Forwarded-For": address, "X-Forwarded-Proto": proto } });

  it("beyond the limit per second → 429, whatever is requested; probes are not counted, and others are served", async () => {
    const paths = ["/products/1", "/products", "/nowhere"];
    const responses = await Promise.all(Array.from({ length: 60 }, (_, i) => from("198.51.100.1", paths[i % 3])));
    const limited = responses.filter(({ status }) => status === 429);
    expect(limited.length).toBeGreaterThanOrEqual(20); // the requests may spread over two seconds
    limited.forEach(expectLimited);
    expect((await from("198.51.100.2")).status).toBe(404);
    const health = await times(40, () => from("198.51.100.1", "/health/live"));
    expect(count(health, 200)).toBe(40);
    const whole = await times(60, () => from("198.51.100.4", "/health"));
    expect(count(whole, 429)).toBeGreaterThanOrEqual(20);
  });

  it("only the last address, written by our own proxy, counts, not those before it", async () => {
    const responses = await Promise.all(Array.from({ length: 60 }, (_, i) => from(`198.51.100.${i}, 198.51.100.200`)));
    expect(count(responses, 429)).toBeGreaterThanOrEqual(20);
  });

  it("over TLS according to the proxy: HSTS", async () => {
    const { headers } = await from("198.51.100.3", "/products", "https");
    expect(headers.get("strict-transport-security")).toBe("max-age=31536000");
    expect((await from("198.51.100.3", "/products")).headers.get("strict-transport-security")).toBeNull();
  });
});
