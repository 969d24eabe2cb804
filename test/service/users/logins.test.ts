import { randomBytes } from "node:crypto";
import bcrypt from "bcryptjs";
import { Client as Postgres } from "pg";
import { call } from "../../../broker/contract";
import { currentDeadline, withRequest } from "../../../broker/request";
import { register, revocations, token } from "../../../contracts/users";
import type { Database } from "../../../mixins/database";
import type { Logins } from "../../../services/users/logins";
import { until } from "../../../testkit/until";
import { Client, type ApiResponse } from "../../../testkit/client";
import { startShop, urlOf, type Shop, type ShopOptions } from "../../../testkit/shop";

const PASSWORD = "correct horse battery";

let shop: Shop;
let client: Client;

async function open(options: ShopOptions): Promise<void> {
  shop = await startShop({ nodes: [["api"], ["users"]], ...options });
  client = new Client(urlOf(shop.node("api")));
}

const service = () =>
  shop.node("users").getLocalService("users") as unknown as {
    db: Database;
    logins: Pick<Logins, "logIn" | "register" | "changePassword"> & { find(where: object): Promise<unknown> };
    passwords: { pool: { run(task: object, options: object): Promise<unknown> } };
  };

async function inUsers<T extends object>(sql: string, values: unknown[] = []): Promise<T[]> {
  const database = new Postgres(shop.databases.users.url);
  await database.connect();
  return (await database.query<T>(sql, values).finally(() => database.end())).rows;
}

const unique = (): string => `${randomBytes(8).toString("hex")}@shop.test`;
const from = (address: string) => ({ headers: { "X-Forwarded-For": address } });
const logIn = (email: string, password: string, address = "203.0.113.1"): Promise<ApiResponse> =>
  client.post("/token", { email, password }, from(address));

/** Retries while the shop is too busy, as on a busy machine. */
async function retryWhileBusy(request: () => Promise<ApiResponse>): Promise<ApiResponse> {
  for (let tries = 1; ; tries++) {
    const response = await request();
    if (response.status !== 503 || tries === 20) return response;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function newAccount(): Promise<string> {
  const email = unique();
  expect((await retryWhileBusy(() => client.post("/register", { email, password: PASSWORD }, from("203.0.113.9")))).status).toBe(201);
  return email;
}

describe("after the cost of hashes was changed", () => {
  const COST = 6;
  beforeAll(() => open({ env: { BCRYPT_COST: String(COST), TRUST_PROXY: "loopback" } }));
  afterAll(() => shop.stop());

  /** Creates an account whose hash has another cost. */
  async function oldAccount(cost: number): Promise<string> {
    const email = await newAccount();
    await inUsers("update users set password_hash = $2 where email = $1", [email, await bcrypt.hash(PASSWORD, cost)]);
    return email;
  }
  async function storedHash(email: string): Promise<string> {
    return (await inUsers<{ password_hash: string }>("select password_hash from users where email = $1", [email]))[0]!.password_hash;
  }

  it.each([4, 5, 8])("a successful login renews a hash of cost %i, once; its session continues", async (cost) => {
    const email = await oldAccount(cost);
    const before = await storedHash(email);
    expect((await logIn(email, "wrong")).status).toBe(401);
    expect(await storedHash(email)).toBe(before);
    const { body } = await logIn(email, PASSWORD);
    const renewed = await storedHash(email);
    expect([bcrypt.getRounds(renewed), bcrypt.compareSync(PASSWORD, renewed)]).toEqual([COST, true]);
    expect((await client.post("/token/refresh", { refresh_token: body["refresh_token"] })).status).toBe(200);
    expect((await logIn(email, PASSWORD)).status).toBe(200);
    expect(await storedHash(email)).toBe(renewed);
  });

  it("of many successful logins at once none is refused, although each renews the hash that others have compared with", async () => {
    const email = await oldAccount(4);
    const ask = (_: unknown, i: number) => retryWhileBusy(() => logIn(email, PASSWORD, `198.51.100.${i}`));
    const responses = await Promise.all(Array.from({ length: 12 }, ask));
    expect(responses.map(({ status }) => status)).toEqual(Array<number>(12).fill(200));
    expect(bcrypt.getRounds(await storedHash(email))).toBe(COST);
  });

  it("a change of password at the same moment as logins that renew its hash is not refused, and is not undone", async () => {
    for (let round = 0; round < 5; round++) {
      const email = await oldAccount(4);
      const { body } = await logIn(email, PASSWORD);
      await inUsers("update users set password_hash = $2 where email = $1", [email, await bcrypt.hash(PASSWORD, 4)]);
      const change = client.request(
        "PUT",
        "/me/password",
        { current_password: PASSWORD, new_password: "another horse" },
        { token: String(body["access_token"]) },
      );
      const logins = Array.from({ length: 4 }, (_, i) => logIn(email, PASSWORD, `198.51.100.${i}`));
      expect((await change).status).toBe(204);
      for (const { status } of await Promise.all(logins)) expect([200, 401]).toContain(status);
      expect([(await logIn(email, "another horse")).status, (await logIn(email, PASSWORD)).status]).toEqual([200, 401]);
    }
  });

  it("an unknown e-mail, an old account and a new one all take the time of the highest stored cost", async () => {
    const HIGHEST = 9;
    await oldAccount(HIGHEST);
    const who = { unknown: unique(), old: await oldAccount(4), present: await newAccount() };
    const times: Record<string, number[]> = {};
    for (let i = 0; i < 7; i++)
      for (const [name, email] of Object.entries(who)) {
        const start = performance.now();
        expect((await logIn(email, "wrong")).status).toBe(401);
        (times[name] ??= []).push(performance.now() - start);
      }
    const [unknown, old, present] = Object.values(times).map((ms) => ms.sort((a, b) => a - b)[3]!) as [number, number, number];
    // A login at the old account's cost would take a thirty-second of the time, at the new one's an eighth.
    for (const ratio of [unknown / present, old / present]) expect(Math.abs(Math.log2(ratio))).toBeLessThan(1);
  });
});

describe("while a client keeps the hashing threads busy", () => {
  const [GREEDY, VICTIM] = ["203.0.113.66", "203.0.113.7"];
  beforeAll(() => open({ env: { BCRYPT_COST: "9", TRUST_PROXY: "loopback" } }));
  afterAll(() => shop.stop());

  interface Attack {
    statuses: number[];
    end(): Promise<void>;
  }

  /** Keeps thirty requests in flight; a refused one is replaced after a short pause. */
  function attack(request: () => Promise<ApiResponse>): Attack {
    let isOver = false;
    const statuses: number[] = [];
    const one = async (): Promise<void> => {
      while (!isOver) {
        const { status } = await request();
        statuses.push(status);
        if (status === 429) await new Promise((resolve) => setTimeout(resolve, 50));
      }
    };
    const all = Array.from({ length: 30 }, one);
    return {
      statuses,
      end: async () => {
        isOver = true;
        await Promise.all(all);
      },
    };
  }

  it.each<[string, () => () => Promise<ApiResponse>]>([
    ["logins of unknown e-mails", () => () => logIn(unique(), "wrong", GREEDY)],
    ["registrations", () => () => client.post("/register", { email: unique(), password: PASSWORD }, from(GREEDY))],
  ])("with %s, other clients can log in and register after a few hashes", async (_what, kind) => {
    const email = await newAccount();
    const attackers = attack(kind());
    const hashed = () => attackers.statuses.filter((status) => status === 201 || status === 401).length;
    try {
      await until("the attacker holds its share", () => attackers.statuses.includes(429));
      for (let i = 0; i < 3; i++) {
        const before = hashed();
        const registration = { email: unique(), password: PASSWORD };
        expect((await retryWhileBusy(() => logIn(email, PASSWORD, VICTIM))).status).toBe(200);
        expect((await retryWhileBusy(() => client.post("/register", registration, from(VICTIM)))).status).toBe(201);
        expect(hashed() - before).toBeLessThanOrEqual(12); // a few for each of the two, although thirty are queued
      }
    } finally {
      await attackers.end();
    }
    for (const status of attackers.statuses) expect([201, 401, 429, 503]).toContain(status);
  });

  it("a registration that misses its deadline creates nothing, unless it is already being written", async () => {
    const { logins, db } = service();
    const [run, writes] = [logins.register.bind(logins), jest.spyOn(db, "transaction")];
    const deadlines: number[] = [];
    const registering = jest.spyOn(logins, "register").mockImplementation((...args) => {
      deadlines.push(currentDeadline());
      return run(...args);
    });
    const emails = Array.from({ length: 12 }, unique);
    const ask = (email: string, i: number) =>
      call(shop.node("users"), register, { email, password: PASSWORD, address: `198.51.100.${i}` }, { timeout: 200 });
    const outcomes = await Promise.allSettled(emails.map(ask));
    expect(outcomes.filter(({ status }) => status === "rejected").length).toBeGreaterThan(0);
    await until("all deadlines have passed", () => performance.now() > Math.max(...deadlines));
    const begun = writes.mock.calls.length;
    await Promise.allSettled(registering.mock.results.map(({ value }) => value as Promise<unknown>)); // the abandoned work has ended
    expect(writes).toHaveBeenCalledTimes(begun);
    expect((await inUsers("select from users where email = any($1)", [emails])).length).toBeLessThanOrEqual(begun);
    jest.restoreAllMocks();
  });
});

describe("within limits", () => {
  beforeAll(() =>
    open({
      env: {
        RATE_LIMIT_AUTH: "9",
        RATE_LIMIT_ACCOUNT: "99",
        RATE_LIMIT_ADDRESS: "999",
        RATE_LIMIT_REGISTER: "99",
        TRUST_PROXY: "loopback",
      },
    }),
  );
  afterAll(() => shop.stop());
  const gates: (() => void)[] = [];
  afterEach(() => {
    for (const open of gates.splice(0)) open(); // even if the test failed, so that nothing keeps waiting in the next one
    jest.restoreAllMocks();
  });

  const rowsOf = async (table: "login_attempts" | "sessions" | "users") =>
    (await inUsers<{ n: number }>(`select count(*)::int as n from ${table}`))[0]!.n;
  const gate = () => {
    let open = (): void => undefined;
    const opened = new Promise<void>((resolve) => (open = resolve));
    gates.push(open);
    return { open, opened };
  };
  /** Lets hashes finish, but withholds their results until then. */
  function holdHashes(until: Promise<void>) {
    const { pool } = service().passwords;
    const run = pool.run.bind(pool);
    return jest.spyOn(pool, "run").mockImplementation(async (task, options) => {
      const result = await run(task, options);
      await until;
      return result;
    });
  }
  /** Runs work whose deadline has passed when its password has been hashed. */
  async function late<T>(work: () => Promise<T>): Promise<void> {
    const { open, opened } = gate();
    const hashes = holdHashes(opened);
    const deadline = performance.now() + 500;
    const done = expect(withRequest(undefined, deadline, work)).rejects.toMatchObject({ type: "SERVICE_UNAVAILABLE" });
    await until("the deadline has passed", () => performance.now() > deadline);
    open();
    await done;
    expect(hashes).toHaveBeenCalledTimes(1);
    hashes.mockRestore();
  }
  const visitor = (address: string) => ({ address, isWanted: () => true });

  it("a successful login leaves no row of attempts, and earlier failures still count", async () => {
    const email = await newAccount();
    expect((await logIn(email, "wrong", "198.51.100.1")).status).toBe(401);
    const before = await inUsers("select * from login_attempts order by subject");
    expect((await logIn(email, PASSWORD, "198.51.100.1")).status).toBe(200);
    expect((await logIn(email, PASSWORD, "198.51.100.2")).status).toBe(200);
    expect(await inUsers("select * from login_attempts order by subject")).toEqual(before);
  });

  it("logins without a place in the hashing queue are refused before anything is counted", async () => {
    const { open, opened } = gate();
    const hashes = holdHashes(opened);
    const ask = () =>
      call(shop.node("users"), token, { email: unique(), password: "wrong", address: "198.51.100.3" }).catch((error: unknown) => error);
    const rows = await rowsOf("login_attempts");
    const flood: Promise<unknown>[] = [];
    const refused = new Set<unknown>();
    for (let wave = 0; wave < 4; wave++) {
      const asked = Array.from({ length: 25 }, ask);
      for (const one of asked) void one.then((error) => refused.add(error));
      flood.push(...asked);
      await until(
        "the admitted ones have been counted",
        async () => (await rowsOf("login_attempts")) === rows + 1 + 2 * (flood.length - refused.size),
      );
    }
    expect(refused.size).toBeGreaterThan(20);
    const query = jest.spyOn(service().db, "query");
    expect(await ask()).toMatchObject({ type: "TOO_MANY_REQUESTS" });
    expect(query).not.toHaveBeenCalled();
    open();
    const outcomes = await Promise.all(flood);
    const failed = outcomes.filter((error) => (error as { type?: string }).type === "INVALID_CREDENTIALS");
    expect(await rowsOf("login_attempts")).toBe(rows + 1 + 2 * failed.length);
    hashes.mockRestore();
  });

  it("however many attempts wait for the counter of their address, they hold one connection, and ended sessions are still reported", async () => {
    const ask = () =>
      call(shop.node("users"), token, { email: unique(), password: "wrong", address: "198.51.100.9" }).catch((error: unknown) => error);
    expect(await ask()).toMatchObject({ type: "INVALID_CREDENTIALS" });
    const database = new Postgres(shop.databases.users.url);
    await database.connect();
    await database.query("begin");
    await database.query("select from login_attempts for update");
    const flood = Array.from({ length: 60 }, ask);
    const waiting = "select from pg_locks l join pg_stat_activity using (pid) where not granted and datname = current_database()";
    try {
      await until("some wait", async () => (await inUsers(waiting)).length > 0);
      await call(shop.node("users"), revocations, {});
      expect(service().db.pool.using).toBe(1);
    } finally {
      await database.query("commit").finally(() => database.end());
      await Promise.all(flood);
    }
  });

  it("however often an e-mail is tried from another address, its user is not refused", async () => {
    const email = await newAccount();
    const ask = () =>
      call(shop.node("users"), token, { email, password: "wrong", address: "198.51.100.10" }).catch((error: unknown) => error);
    await ask();
    const database = new Postgres(shop.databases.users.url);
    await database.connect();
    await database.query("begin");
    await database.query("select from login_attempts for update");
    let refused = 0;
    const flood = Array.from({ length: 66 }, () => ask().then((error) => void (refused += Number(error instanceof Error))));
    await until("all of the address's places are taken", () => refused > 0);
    const login = logIn(email, PASSWORD, "198.51.100.11");
    await database.query("commit").finally(() => database.end());
    expect((await login).status).toBe(200);
    await Promise.all(flood);
  });

  it("a registration that was hashed too late counts, and creates no account", async () => {
    const [rows, accounts] = [await rowsOf("login_attempts"), await rowsOf("users")];
    await late(() => service().logins.register({ email: unique(), password: PASSWORD }, visitor("198.51.100.4")));
    expect([await rowsOf("login_attempts"), await rowsOf("users")]).toEqual([rows + 1, accounts]);
  });

  it("a registration that was not hashed does not count", async () => {
    const rows = await rowsOf("login_attempts");
    jest.spyOn(service().logins, "find").mockRejectedValueOnce(new Error("lost"));
    const registration = service().logins.register({ email: unique(), password: PASSWORD }, visitor("198.51.100.5"));
    await expect(registration).rejects.toThrow("lost");
    expect(await rowsOf("login_attempts")).toBe(rows);
  });

  it("a login with the right password whose deadline has passed opens no session, and does not count", async () => {
    const email = await newAccount();
    const [rows, sessions] = [await rowsOf("login_attempts"), await rowsOf("sessions")];
    await late(() => service().logins.logIn({ email, password: PASSWORD }, visitor("198.51.100.6")));
    expect([await rowsOf("login_attempts"), await rowsOf("sessions")]).toEqual([rows, sessions]);
  });

  it("a change of password whose deadline has passed changes nothing", async () => {
    const email = await newAccount();
    const [user] = await inUsers<{ id: string }>("select id from users where email = $1", [email]);
    await late(() => service().logins.changePassword(user!, { current: PASSWORD, next: "another horse" }, visitor("198.51.100.7")));
    expect((await logIn(email, PASSWORD)).status).toBe(200);
  });

  it.each(["logIn", "register", "changePassword"] as const)(
    "however many requests are waiting in %s, another one reaches the fair queue",
    async (method) => {
      const email = await newAccount();
      const own = await new Client(client.url).login(email, PASSWORD);
      const { open, opened } = gate();
      const { logins } = service();
      const held = jest.spyOn(logins, method).mockImplementation(async () => {
        await opened;
        throw new Error("held");
      });
      const ask = {
        logIn: (address: string) => logIn(email, PASSWORD, address),
        register: (address: string) => client.post("/register", { email: unique(), password: PASSWORD }, from(address)),
        changePassword: (address: string) =>
          own.request("PUT", "/me/password", { current_password: PASSWORD, new_password: PASSWORD }, from(address)),
      }[method];
      // a gateway would not accept that many per second from one address
      const waiting = Array.from({ length: 100 }, (_, n) => ask(`198.51.100.${20 + (n % 4)}`));
      await until("all have arrived", () => held.mock.calls.length === 100);
      open();
      await Promise.all(waiting);
    },
  );
});
