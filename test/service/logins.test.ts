import { randomBytes } from "node:crypto";
import bcrypt from "bcryptjs";
import { Client as Postgres } from "pg";
import { call } from "../../broker/contract";
import { register } from "../../contracts/users";
import { until } from "../support/amqp";
import { Client, type Answer } from "../support/client";
import { startShop, urlOf, type Shop, type ShopOptions } from "../support/shop";

const PASSWORD = "correct horse battery";

let shop: Shop;
let client: Client;

async function open(options: ShopOptions): Promise<void> {
  shop = await startShop({ nodes: [["api"], ["users"]], ...options });
  client = new Client(urlOf(shop.node("api")));
}

async function inUsers<T extends object>(sql: string, values: unknown[] = []): Promise<T[]> {
  const database = new Postgres(shop.databases.users.url);
  await database.connect();
  return (await database.query<T>(sql, values).finally(() => database.end())).rows;
}

const unique = (): string => `${randomBytes(8).toString("hex")}@shop.test`;
const from = (address: string) => ({ headers: { "X-Forwarded-For": address } });
const logIn = (email: string, password: string, address = "203.0.113.1"): Promise<Answer> =>
  client.post("/token", { email, password }, from(address));

/** Again while there is no time for it, as on a busy machine. */
async function insist(request: () => Promise<Answer>): Promise<Answer> {
  for (let tries = 1; ; tries++) {
    const answer = await request();
    if (answer.status !== 503 || tries === 20) return answer;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function newAccount(): Promise<string> {
  const email = unique();
  expect((await insist(() => client.post("/register", { email, password: PASSWORD }, from("203.0.113.9")))).status).toBe(201);
  return email;
}

describe("where the cost of hashes was changed", () => {
  const COST = 6;
  beforeAll(() => open({ env: { BCRYPT_COST: String(COST), TRUST_PROXY: "loopback" } }));
  afterAll(() => shop.stop());

  /** An account from a time with another cost. */
  async function oldAccount(cost: number): Promise<string> {
    const email = await newAccount();
    await inUsers("update users set password_hash = $2 where email = $1", [email, await bcrypt.hash(PASSWORD, cost)]);
    return email;
  }
  async function storedHash(email: string): Promise<string> {
    return (await inUsers<{ password_hash: string }>("select password_hash from users where email = $1", [email]))[0]!.password_hash;
  }

  it.each([4, 5, 8])("a right login renews a hash of cost %i, once; its session goes on", async (cost) => {
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

  it("of many right logins at once none is refused, although each renews the hash that others have compared with", async () => {
    const email = await oldAccount(4);
    const ask = (_: unknown, i: number) => insist(() => logIn(email, PASSWORD, `198.51.100.${i}`));
    const answers = await Promise.all(Array.from({ length: 12 }, ask));
    expect(answers.map(({ status }) => status)).toEqual(Array<number>(12).fill(200));
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

  it("an unknown e-mail, an old account and a new one take as long as the highest stored cost asks for", async () => {
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
    // A login at the cost of the old account takes a thirty-second, at that of the new one an eighth.
    for (const ratio of [unknown / present, old / present]) expect(Math.abs(Math.log2(ratio))).toBeLessThan(1);
  });
});

describe("while somebody keeps the threads busy", () => {
  const [GREEDY, VICTIM] = ["203.0.113.66", "203.0.113.7"];
  beforeAll(() => open({ env: { BCRYPT_COST: "9", TRUST_PROXY: "loopback" } }));
  afterAll(() => shop.stop());

  interface Attack {
    statuses: number[];
    end(): Promise<void>;
  }

  /** Thirty requests at a time, each of which is followed by the next one; a refused one after a moment. */
  function attack(request: () => Promise<Answer>): Attack {
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

  it.each<[string, () => () => Promise<Answer>]>([
    ["logins of unknown e-mails", () => () => logIn(unique(), "wrong", GREEDY)],
    ["registrations", () => () => client.post("/register", { email: unique(), password: PASSWORD }, from(GREEDY))],
  ])("by %s, others log in and register after a few hashes", async (_what, kind) => {
    const email = await newAccount();
    const attackers = attack(kind());
    const hashed = () => attackers.statuses.filter((status) => status === 201 || status === 401).length;
    try {
      await until("the attacker holds its share", () => attackers.statuses.includes(429));
      for (let i = 0; i < 3; i++) {
        const before = hashed();
        const registration = { email: unique(), password: PASSWORD };
        expect((await insist(() => logIn(email, PASSWORD, VICTIM))).status).toBe(200);
        expect((await insist(() => client.post("/register", registration, from(VICTIM)))).status).toBe(201);
        expect(hashed() - before).toBeLessThanOrEqual(12); // a few for each of the two, where thirty wait
      }
    } finally {
      await attackers.end();
    }
    for (const status of attackers.statuses) expect([201, 401, 429, 503]).toContain(status);
  });

  it("a registration that can't be served in its time creates nothing", async () => {
    const emails = Array.from({ length: 12 }, unique);
    const ask = (email: string, i: number) =>
      call(shop.node("users"), register, { email, password: PASSWORD, address: `198.51.100.${i}` }, { timeout: 200 });
    const outcomes = await Promise.allSettled(emails.map(ask));
    const refused = emails.filter((_email, i) => outcomes[i]!.status === "rejected");
    expect(refused.length).toBeGreaterThan(0);
    await client.post("/register", { email: unique(), password: PASSWORD }); // after all that was waiting
    expect(await inUsers("select from users where email = any($1)", [refused])).toHaveLength(0);
  });
});
