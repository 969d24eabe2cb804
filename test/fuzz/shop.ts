import { randomBytes } from "node:crypto";
import { Client as Postgres } from "pg";
import { ADMIN } from "../../testkit/admin";
import { Client } from "../../testkit/client";
import { runCleanups } from "../../testkit/cleanups";
import { startWholeShop } from "../../testkit/whole-shop";
import { Fixture, type Account } from "./fixture";

const PASSWORD = "correct horse battery";
const PARKED = 60;

/** The shop under test. */
export interface Target {
  url: string;
  fixture: Fixture;
  /** Log lines of level error or fatal since the last call. */
  errors(): string[];
  stop(): Promise<void>;
}

/** Starts a node with the data that requests need to succeed, on the PostgreSQL of TEST_POSTGRES_URL or on a new one. */
export async function startTarget(): Promise<Target> {
  const stops: (() => unknown)[] = [];
  const stop = (): Promise<void> => runCleanups(stops);
  try {
    const { node, databases } = await startWholeShop(stops, {
      ACCESS_TOKEN_TTL: "86400",
      LOG_FORMAT: "json",
      // A single client sends everything. The rate limits have their own tests.
      RATE_LIMIT_AUTH: "0",
      RATE_LIMIT_ACCOUNT: "0",
      RATE_LIMIT_ADDRESS: "0",
      RATE_LIMIT_REGISTER: "0",
      RATE_LIMIT_PASSWORD: "0",
    });
    const url = node.url ?? "";
    const fixture = await createFixture(url, databases.orders.url);
    let read = 0;
    const errors = (): string[] => {
      const output = node.output();
      const lines = output.slice(read).split("\n");
      read = output.length - (lines.pop()?.length ?? 0);
      return lines.filter((line) => /"level":"(error|fatal)"|^\S*Error\b/.test(line));
    };
    return { url, fixture, errors, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function createFixture(url: string, ordersUrl: string): Promise<Fixture> {
  const account = async (): Promise<Account> => {
    const client = new Client(url);
    const email = `${randomBytes(6).toString("hex")}@fuzz.test`;
    const { body } = await client.post("/register", { email, password: PASSWORD });
    await client.login(email, PASSWORD);
    return { id: String(body["id"]), email, password: PASSWORD, token: client.token ?? "" };
  };
  const admin = await new Client(url).login(ADMIN.email, ADMIN.password);
  const { body: itself } = await admin.get("/me");
  const fixture = new Fixture({
    seller: await account(),
    buyer: await account(),
    changer: await account(),
    admin: { ...ADMIN, id: String(itself["id"]), token: admin.token ?? "" },
  });
  const as = (token: string): Client => Object.assign(new Client(url), { token });
  const [seller, buyer] = [as(fixture.accounts.seller.token), as(fixture.accounts.buyer.token)];
  for (let i = 0; i < 5; i++) {
    const { id, email, password } = await account();
    fixture.loginAccounts.push({ id, email, password });
    const { body } = await new Client(url).post("/token", { email, password });
    fixture.refreshTokens.push(String(body["refresh_token"]));
  }
  for (let i = 0; i < 40; i++)
    fixture.products.push({ id: await seller.createProduct({ name: `Lamp ${i}`, quantity: i < 5 ? 3 : 100_000 }), etag: '"1-1"' });
  for (let i = 0; i < PARKED + 2; i++) {
    const { body } = await buyer.order(fixture.products[10 + (i % 20)]?.id ?? "", 1);
    fixture.orders.push({ id: String(body["id"]), etag: '"1"' });
  }
  for (const { id } of fixture.orders) await buyer.decided(id);
  fixture.rejectedId = fixture.orders.shift()?.id ?? "";
  await insertStates(ordersUrl, fixture);
  return fixture;
}

/** Arranges by SQL what requests can't provoke: a rejected order, and parked outbox rows. */
async function insertStates(url: string, fixture: Fixture): Promise<void> {
  const database = new Postgres(url);
  await database.connect();
  try {
    await database.query("update orders set status = 'REJECTED' where id = $1", [fixture.rejectedId]);
    const { rows } = await database.query<{ id: string }>("select id from outbox order by id");
    const ids = rows.map(({ id }) => Number(id));
    fixture.outbox.push(...ids.slice(0, 2));
    fixture.parked.push(...ids.slice(2));
    await database.query("update outbox set state = 'PARKED', settled_at = null where id = any($1::bigint[])", [fixture.parked]);
  } finally {
    await database.end();
  }
}
