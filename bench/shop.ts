import { randomBytes, randomUUID } from "node:crypto";
import path from "node:path";
import { databaseNames, DATABASES, SERVICES, type DatabaseName, type ServiceName } from "../config";
import { issueToken, type SigningKey } from "../services/users/tokens";
import { deleteLeftovers } from "../testkit/amqp";
import { freePorts } from "../testkit/free-ports";
import { testId } from "../testkit/ids";
import { NODE_FLAGS } from "../testkit/node-flags";
import { isOk, startProgram, type RunningProgram } from "../testkit/program";
import { seedProducts } from "../testkit/seed-products";
import { shopKey } from "../testkit/signing-key";
import { sql } from "../testkit/sql";
import { eventually } from "../testkit/until";
import type { Setup } from "./setup";

export interface ShopOptions {
  key: string;
  /** Number of nodes per service; undefined for one process with all services. */
  topology?: Readonly<Record<ServiceName, number>> | undefined;
  /** A module that is preloaded into each node. */
  preload?: string | undefined;
  env?: Readonly<Record<string, string>>;
  /** Environment variables that differ per node. */
  nodeEnv?: (name: string) => Readonly<Record<string, string>>;
}

export interface Shop {
  url: string;
  namespace: string;
  nodes: RunningProgram[];
  databases: Readonly<Record<DatabaseName, string>>;
  tokens: string[];
  adminToken: string;
}

export const USERS = 100;
export const USER_IDS = Array.from({ length: USERS }, (_, n) => testId(n + 1));
const TOKEN_SECONDS = 86_400;

const ENV = {
  NODE_ENV: "test",
  HOST: "127.0.0.1",
  LOG_LEVEL: "warn",
  LOG_FORMAT: "json",
  ACCESS_TOKEN_TTL: String(TOKEN_SECONDS),
  BCRYPT_COST: "12",
  RATE_LIMIT_REGISTER: "0", // all users of a benchmark have the same address
};

/** Starts the nodes of one shop as processes and seeds its databases. */
export async function startShop(setup: Setup, options: ShopOptions): Promise<Shop> {
  const { key, topology } = options;
  const namespace = `bench-${key}-${randomBytes(3).toString("hex")}`;
  const databases = {
    users: setup.postgres.url(`${key}_users`),
    products: setup.postgres.url(`${key}_products`),
    orders: setup.postgres.url(`${key}_orders`),
  };
  const env: Record<string, string> = { ...ENV, NAMESPACE: namespace };
  for (const [service] of databaseNames()) env[DATABASES[service]] = databases[service];
  if (topology !== undefined) env.TRANSPORTER = setup.amqp;

  const places = topology === undefined ? [undefined] : SERVICES.flatMap((service) => Array<ServiceName>(topology[service]).fill(service));
  const names = places.map((service, n) => `${key}-${service ?? "all"}-${n}`);
  const url = { gateway: "" };
  const launch = async (service: ServiceName | undefined, n: number): Promise<RunningProgram> => {
    const [port = 0, opsPort = 0] = await freePorts(2);
    const name = names[n] ?? "";
    if (service === undefined || service === "api") url.gateway = `http://127.0.0.1:${port}`;
    const own = { NODE_ID: name, PORT: String(port), OPS_PORT: String(opsPort), ...(service !== undefined && { SERVICES: service }) };
    const node = await startProgram({
      name,
      cwd: setup.build,
      logs: setup.logs,
      args: [...NODE_FLAGS, ...(options.preload === undefined ? [] : ["--require", options.preload]), "scripts/start.js"],
      env: {
        NODE_COMPILE_CACHE: path.join(setup.folder, "compile-cache"),
        ...env,
        ...options.env,
        ...options.nodeEnv?.(name),
        ...own,
      },
      ready: () => isOk(`http://127.0.0.1:${opsPort}/ready`),
    });
    setup.onStop(() => node.stop());
    return node;
  };
  if (topology !== undefined) setup.onStop(() => deleteLeftovers(setup.amqp, namespace));
  const nodes = await Promise.all(places.map(launch));
  await eventually(`${key} responds`, () => isOk(`${url.gateway}/health`), 30_000);
  await seedProducts(databases.products);
  await insertUsers(databases.users);
  const signer = await shopKey(databases.users);
  return { url: url.gateway, namespace, nodes, databases, tokens: tokensOf(signer), adminToken: issueToken(signer, ADMIN, TOKEN_SECONDS) };
}

/** A hundred users and an admin, logged in once each. */
const LOGGED_IN_USERS = USER_IDS.map((id) => ({ id, role: "user", session: randomUUID() }) as const);
const ADMIN = { id: testId(USERS + 1), role: "admin", session: randomUUID() } as const;

/** The users' tokens. They are signed here, since a login takes a third of a second of CPU. */
export const tokensOf = (signer: SigningKey): string[] => LOGGED_IN_USERS.map((user) => issueToken(signer, user, TOKEN_SECONDS));

/** Inserts the users and their sessions: tokens of unknown sessions are refused. */
async function insertUsers(usersDatabase: string): Promise<void> {
  const users = [...LOGGED_IN_USERS, ADMIN];
  await sql(
    usersDatabase,
    `with input as (
       select id, role, session from unnest($1::uuid[], $2::text[], $3::uuid[]) as x (id, role, session)
     ), people as (
       insert into users (id, email, email_key, password_hash, role) select id, id || '@bench.test', id || '@bench.test', '', role from input returning id
     )
     insert into sessions (id, user_id, expires_at) select session, people.id, now() + interval '1 day' from people join input on input.id = people.id`,
    [users.map(({ id }) => id), users.map(({ role }) => role), users.map(({ session }) => session)],
  );
}
