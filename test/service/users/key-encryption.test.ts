import { createPublicKey, randomBytes } from "node:crypto";
import jwt from "jsonwebtoken";
import { ServiceBroker, type ServiceSchema } from "moleculer";
import { Client as Postgres } from "pg";
import { asSystem, call } from "../../../broker/contract";
import { ConfigError, loadConfig } from "../../../config";
import { jwks, rotateKeys, token } from "../../../contracts/users";
import { brokerOptions } from "../../../moleculer.config";
import users from "../../../services/users/users.service";
import { createDatabase, type TestDatabase } from "../../../testkit/postgres";
import { killProcesses, startProcess } from "../../../testkit/node-process";
import { ADMIN } from "../../../testkit/admin";
import { createDatabases, dropDatabases } from "../../../testkit/databases";
import { uniqueNamespace } from "../../../testkit/shop";

const [OLD = "", NEW = "", OTHER = ""] = [1, 2, 3].map(() => randomBytes(32).toString("base64"));
type Env = Readonly<Record<string, string>>;
/** The keys of a node, the first of which encrypts. */
const keys = (key: string, older?: string): Env => ({ KEY_ENCRYPTION_KEY: key, ...(older && { KEY_ENCRYPTION_KEY_OLD: older }) });

let database: TestDatabase;
const nodes: ServiceBroker[] = [];
const logged: string[] = [];

beforeEach(async () => {
  database = await createDatabase("users");
  logged.length = 0;
  for (const method of ["log", "info", "warn", "error", "debug", "trace"] as const)
    jest.spyOn(console, method).mockImplementation((...args: unknown[]) => void logged.push(args.map(String).join(" ")));
});
afterEach(async () => {
  await Promise.all(nodes.splice(0).map((node) => node.stop()));
  await database.drop();
  jest.restoreAllMocks();
});
afterAll(killProcesses);

async function inUsers<T extends object>(sql: string): Promise<T[]> {
  const client = new Postgres(database.url);
  await client.connect();
  return (await client.query<T>(sql).finally(() => client.end())).rows;
}
const stored = () => inUsers<{ kid: string; private_key: string }>("select kid, private_key from signing_keys order by created_at, kid");

/** A users node; the nodes share only the database. */
async function start(env: Env = {}): Promise<ServiceBroker> {
  const common = {
    BCRYPT_COST: "4",
    LOG_LEVEL: "trace",
    NAMESPACE: uniqueNamespace(),
    ADMIN_EMAIL: ADMIN.email,
    ADMIN_PASSWORD: ADMIN.password,
  };
  const config = loadConfig({ ...common, USERS_DATABASE_URL: database.url, ...env });
  const node = new ServiceBroker(brokerOptions(config));
  nodes.push(node);
  node.createService(users(node, config) as unknown as ServiceSchema);
  await node.start();
  return node;
}

/** Ages the keys past the time in which a new one is only published, so that the newest one signs. */
const age = (): Promise<object[]> => inUsers("update signing_keys set created_at = created_at - interval '11 minutes'");

const logIn = async (node: ServiceBroker): Promise<string> => (await call(node, token, ADMIN)).access_token;
const kidOf = (accessToken: string): unknown => jwt.decode(accessToken, { complete: true })?.header.kid;

/** Verifies a token with the public keys that a node publishes. */
async function expectVerified(accessToken: string, node: ServiceBroker): Promise<void> {
  const key = (await call(node, jwks, {})).keys.find(({ kid }) => kid === kidOf(accessToken));
  expect(jwt.verify(accessToken, createPublicKey({ key: { ...key }, format: "jwk" }))).toMatchObject({ role: "admin" });
}

it("with KEY_ENCRYPTION_KEY no signing key is stored in plaintext, and all signed tokens verify", async () => {
  const node = await start(keys(NEW));
  const { kid } = await call(node, rotateKeys, {}, asSystem());
  const rows = await stored();
  expect(rows.map((row) => row.kid)).toContain(kid);
  expect(rows).toHaveLength(2);
  for (const { private_key } of rows) expect(private_key).toMatch(/^aes-256-gcm:/);
  await age();
  await call(node, jwks, {}); // reads the keys again
  const signed = await logIn(node);
  expect(kidOf(signed)).toBe(kid);
  await expectVerified(signed, node);
});

it("keys in plaintext are encrypted at the next start, and older tokens stay valid", async () => {
  const before = await start();
  const signed = await logIn(before);
  const [plain] = await stored();
  expect(plain?.private_key).toMatch(/^-----BEGIN PRIVATE KEY-----/);
  await before.stop();

  const after = await start(keys(NEW));
  expect(await stored()).toEqual([{ kid: plain!.kid, private_key: expect.stringMatching(/^aes-256-gcm:/) }]);
  await expectVerified(signed, after);
});

it("three nodes that start at once on keys in plaintext agree, and each can sign", async () => {
  await (await start()).stop();
  const together = await Promise.all([1, 2, 3].map(() => start(keys(NEW))));
  expect((await stored()).map(({ private_key }) => private_key.split(":")[0])).toEqual(["aes-256-gcm"]);
  for (const node of together) await expectVerified(await logIn(node), together[0]!);
});

it("KEY_ENCRYPTION_KEY is replaced on two nodes: first both keys on each, then only the new one", async () => {
  const first = await start(keys(OLD));
  const signed = await logIn(first);
  const [old] = await stored();
  await first.stop();

  const both = [await start(keys(NEW, OLD)), await start(keys(NEW, OLD))] as const;
  const [renewed] = await stored();
  expect(renewed!.kid).toBe(old!.kid);
  expect(renewed!.private_key).not.toBe(old!.private_key);
  for (const node of both) await expectVerified(signed, node);
  // a key made by one node is used by the other one
  const { kid } = await call(both[0], rotateKeys, {}, asSystem());
  await age();
  await call(both[1], jwks, {});
  const next = await logIn(both[1]);
  expect(kidOf(next)).toBe(kid);
  await Promise.all(both.map((node) => node.stop()));

  const alone = await start(keys(NEW));
  for (const accessToken of [signed, next]) await expectVerified(accessToken, alone);
});

it("while the nodes get the new key one by one, nodes with both keys work side by side, whichever encrypts", async () => {
  const nodesOfBoth = [await start(keys(OLD, NEW)), await start(keys(NEW, OLD))] as const;
  for (const maker of nodesOfBoth) {
    const { kid } = await call(maker, rotateKeys, {}, asSystem());
    for (const node of nodesOfBoth) expect((await call(node, jwks, {})).keys.map((key) => key.kid)).toContain(kid);
  }
  await start(keys(OLD, NEW));
  await start(keys(NEW, OLD));
  await Promise.all(nodes.splice(0).map((node) => node.stop()));
  await expectVerified(await logIn(await start(keys(NEW))), nodes[0]!);
});

it("a node that still has only the old key signs with the keys it has read; a newer key gives 503, and no key is revealed", async () => {
  const left = await start(keys(OLD));
  const moved = await start(keys(NEW, OLD));
  await call(left, jwks, {});
  await expectVerified(await logIn(left), moved);

  await call(moved, rotateKeys, {}, asSystem());
  logged.length = 0;
  await expect(call(left, jwks, {})).rejects.toMatchObject({ code: 503, type: "SERVICE_UNAVAILABLE" });
  const log = logged.join("\n");
  expect(log).toMatch(/WARN .*KEY_ENCRYPTION_KEY does not decrypt signing key/s);
  expect(log).not.toMatch(/ERROR|FATAL/);
  for (const { private_key } of await stored()) expect(log).not.toContain(private_key);
  for (const secret of [OLD, NEW, "PRIVATE KEY"]) expect(log).not.toContain(secret);
});

it.each<[what: string, env: Env, message: RegExp]>([
  ["another key", keys(OTHER), /KEY_ENCRYPTION_KEY does not decrypt signing key/],
  ["two other keys", keys(OTHER, OLD), /Neither KEY_ENCRYPTION_KEY nor KEY_ENCRYPTION_KEY_OLD decrypts signing key/],
  ["no key", {}, /KEY_ENCRYPTION_KEY is missing/],
])("with %s a node does not start, reports why, and leaves the keys unchanged", async (_what, env, message) => {
  await (await start(keys(NEW))).stop();
  const before = await stored();
  const refused = start(env);
  await expect(refused).rejects.toThrow(message);
  await expect(refused).rejects.toBeInstanceOf(ConfigError);
  expect(await stored()).toEqual(before);
  const log = logged.join("\n");
  for (const secret of [NEW, OTHER, OLD, "PRIVATE KEY", ...before.map(({ private_key }) => private_key)]) expect(log).not.toContain(secret);
});

it("a process warns if it doesn't encrypt keys, and with a wrong key exits and logs what to set as its last line", async () => {
  const databases = await createDatabases();
  const env = Object.fromEntries(Object.entries(databases).map(([name, { url }]) => [`${name.toUpperCase()}_DATABASE_URL`, url]));
  try {
    for (const [own, warns] of [
      [{}, true],
      [keys(OLD), false],
    ] as const) {
      const node = await startProcess({ env: { ...env, ...own } });
      expect(await node.stop()).toBe(0);
      expect(node.output().includes("the signing keys in user_db are not encrypted")).toBe(warns);
    }
    const refused = startProcess({ env: { ...env, ...keys(NEW) } }, 1);
    await expect(refused).rejects.toThrow(
      /The configuration has a mistake:\n {2}- KEY_ENCRYPTION_KEY does not decrypt signing key [\w-]{43} in user_db/,
    );
  } finally {
    await dropDatabases(databases);
  }
}, 200_000);
