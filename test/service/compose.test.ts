import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { cp, mkdtemp, readdir, readFile, rm, symlink } from "node:fs/promises";
import { builtinModules } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { Client as Postgres } from "pg";
import { parse } from "yaml";
import { DATABASES, databaseNames, loadConfig, SERVICES, type DatabaseName, type ServiceName } from "../../config";
import { amqpUrl, forget, until } from "../support/amqp";
import { Client } from "../support/client";
import { killProcesses, ROOT, startProcess, type NodeProcess } from "../support/processes";
import { uniqueNamespace } from "../support/shop";

const run = promisify(execFile);

type Env = Readonly<Record<string, string>>;

interface Service {
  image: string;
  build?: string;
  pull_policy?: string;
  command?: string[];
  container_name?: string;
  environment: Record<string, string | number>;
  ports?: string[];
  volumes?: string[];
  depends_on?: Record<string, { condition: string }>;
  healthcheck?: { test: string[] };
  restart?: string;
  stop_grace_period?: string;
}

const textOf = (file: string): string => readFileSync(path.join(ROOT, file), "utf8");

/** As docker compose reads it: with these variables and, where one is unset or empty, the file's own default. */
function compose(env: Env = {}): Record<string, Service> {
  const interpolated = (text: string): string =>
    text.replace(/\$\{(\w+)(:-([^}]*))?\}/g, (_, name: string, hasDefault?: string, fallback = "") => {
      if (hasDefault === undefined) throw new Error(`${name} has no default: the shop would not start without a .env`);
      return env[name] ? env[name] : String(fallback);
    });
  const reviver = (_: unknown, value: unknown): unknown => (typeof value === "string" ? interpolated(value) : value);
  return (parse(textOf("docker-compose.yml"), reviver, { merge: true }) as { services: Record<string, Service> }).services;
}

/** What a service finds in its environment: the image's, and over it compose's. */
function environmentOf(service: ServiceName, env: Env = {}): Env {
  const ofImage =
    /^ENV (.*)$/m
      .exec(textOf("Dockerfile"))?.[1]
      ?.split(" ")
      .map((pair) => pair.split("=")) ?? [];
  const ofService = Object.entries(compose(env)[service]!.environment).map(([name, value]) => [name, String(value)]);
  return Object.fromEntries([...ofImage, ...ofService]) as Env;
}

/** What the image runs, with our own Node.js. */
function imageCommand(instruction: "CMD" | "HEALTHCHECK"): string[] {
  const form = { CMD: /^CMD (\[.*\])$/m, HEALTHCHECK: /^HEALTHCHECK .*\\\n {2}CMD (\[.*\])$/m }[instruction];
  const [program, ...args] = JSON.parse(form.exec(textOf("Dockerfile"))?.[1] ?? "[]") as string[];
  if (program !== "node") throw new Error(`the image's ${instruction} does not run node`);
  return [process.execPath, ...args];
}

const nodes = (): [ServiceName, Service][] => SERVICES.map((name) => [name, compose()[name]!]);

const exampleEnv = (): Env =>
  Object.fromEntries([...textOf(".env.example").matchAll(/^(\w+)=(.*)$/gm)].map(([, name, value]) => [name, value])) as Env;

describe("docker-compose.yml", () => {
  test("has the four services, PostgreSQL and RabbitMQ", () => {
    expect(Object.keys(compose()).sort()).toEqual([...SERVICES, "postgres", "rabbitmq"].sort());
  });

  test("publishes the gateway, and RabbitMQ's page to this machine alone", () => {
    const ports = Object.entries(compose()).flatMap(([name, { ports = [] }]) => ports.map((port) => [name, port]));
    expect(ports).toEqual([
      ["api", "8000:8000"],
      ["rabbitmq", "127.0.0.1:15672:15672"],
    ]);
    expect(loadConfig(environmentOf("api"))).toMatchObject({ port: 8000, host: "0.0.0.0" });
  });

  test("all nodes run one image, and one of them builds it", () => {
    expect(new Set(nodes().map(([, { image }]) => image)).size).toBe(1);
    expect(nodes().flatMap(([, { build }]) => build ?? [])).toEqual(["."]);
    // or it would be looked for in a registry
    expect(nodes().map(([, { pull_policy }]) => pull_policy)).toEqual(Array(4).fill("never"));
    expect(nodes().flatMap(([, { command }]) => command ?? [])).toEqual([]);
  });

  test("each service has its own database, as a role of its own, and no other's", () => {
    for (const [name] of nodes()) {
      const variables = Object.keys(environmentOf(name)).filter((variable) => variable.endsWith("_DATABASE_URL"));
      expect(variables).toEqual(name === "api" ? [] : [DATABASES[name]]);
    }
    const urls = databaseNames().map(([name, variable]) => new URL(environmentOf(name)[variable]!));
    expect(urls.map(({ pathname }) => pathname)).toEqual(["/user_db", "/product_db", "/order_db"]);
    expect(new Set(urls.map(({ username }) => username)).size).toBe(3);
    expect(urls.map(({ host }) => host)).toEqual(Array(3).fill("postgres:5432"));
    // PostgreSQL makes what they ask for
    const { environment } = compose()["postgres"]!;
    expect(databaseNames().map(([, variable]) => environment[variable])).toEqual(urls.map(({ href }) => href));
  });

  test("each node's configuration is valid, and hosts its one service", () => {
    for (const [name] of nodes()) {
      expect(loadConfig(environmentOf(name))).toMatchObject({
        services: [name],
        transporter: "amqp://shop:shop-dev@rabbitmq:5672",
        ops: { port: 9100, host: "0.0.0.0" },
      });
    }
  });

  test("a service can have any number of nodes: nothing of one is fixed", () => {
    for (const service of Object.values(compose())) expect(service.container_name).toBeUndefined();
    for (const [name] of nodes()) {
      const ids = [1, 2].map(() => loadConfig(environmentOf(name)).nodeId);
      expect(ids[0]).not.toBe(ids[1]);
    }
  });

  test("nodes start once PostgreSQL and RabbitMQ are healthy, restart, and have time to finish", () => {
    for (const [name, { depends_on, restart, stop_grace_period = "" }] of nodes()) {
      const needs = name === "api" ? ["rabbitmq"] : ["postgres", "rabbitmq"];
      expect(depends_on).toEqual(Object.fromEntries(needs.map((need) => [need, { condition: "service_healthy" }])));
      expect(restart).toBe("unless-stopped");
      expect(/^\d+s$/.test(stop_grace_period) && parseInt(stop_grace_period) >= 20).toBe(true);
    }
  });

  test("each container has a health check", () => {
    const { postgres, rabbitmq } = compose();
    // by TCP: the server that runs while the cluster is made listens on its socket only
    expect(postgres!.healthcheck!.test).toEqual(expect.arrayContaining(["pg_isready", "--host=127.0.0.1"]));
    expect(rabbitmq!.healthcheck!.test).toContain("rabbitmq-diagnostics");
    expect(imageCommand("HEALTHCHECK").join(" ")).toMatch(/OPS_PORT.*\/ready/);
  });

  test("PostgreSQL 18 has its volume where it keeps its data, and the script that makes the databases", () => {
    const { image, volumes } = compose()["postgres"]!;
    expect(image).toBe("postgres:18");
    expect(volumes).toEqual(["postgres-data:/var/lib/postgresql", "./docker/postgres-init.sql:/docker-entrypoint-initdb.d/shop.sql:ro,z"]);
  });

  test(".env.example names every variable, with the value that it has without", () => {
    const asked = [...textOf("docker-compose.yml").matchAll(/\$\{(\w+)/g)].map(([, name]) => name);
    expect(Object.keys(exampleEnv()).sort()).toEqual([...new Set(asked)].sort());
    for (const [name] of nodes()) {
      const without = { ...loadConfig(environmentOf(name)), nodeId: expect.any(String) as string };
      expect(loadConfig(environmentOf(name, exampleEnv()))).toEqual(without);
    }
    expect(compose(exampleEnv())["api"]!.ports).toEqual(compose()["api"]!.ports);
  });

  test("production refuses each of its passwords, and takes others", () => {
    const passwords = Object.keys(exampleEnv()).filter((name) => /^(?!ADMIN|RATE_LIMIT).*_PASSWORD$/.test(name));
    const own = {
      ...Object.fromEntries(passwords.map((name) => [name, `own-${name}`])),
      KEY_ENCRYPTION_KEY: randomBytes(32).toString("base64"),
    };
    for (const [name] of nodes()) {
      for (const variable of name === "api" ? ["TRANSPORTER"] : ["TRANSPORTER", DATABASES[name]]) {
        const refusal = `${variable} has a default password`;
        expect(() => loadConfig(environmentOf(name, { NODE_ENV: "production" }))).toThrow(refusal);
      }
      expect(loadConfig(environmentOf(name, { NODE_ENV: "production", ...own })).production).toBe(true);
    }
    // and there are no others
    const secrets = textOf("docker-compose.yml").matchAll(/(?:PASS(?:WORD)?: (?!\$)|PASS(?:WORD)?:-)([^\s}]+)/g);
    expect(new Set([...secrets].map(([, secret]) => secret))).toEqual(new Set(["shop-dev"]));
  });
});

/** The roles and databases of the init script, under names of their own: roles belong to the whole server. */
class Cluster {
  private readonly suffix = `_${randomBytes(4).toString("hex")}`;
  private readonly superuser = new URL(process.env["TEST_POSTGRES_URL"]!);
  readonly urls: Readonly<Record<DatabaseName, URL>>;

  constructor() {
    this.superuser.username = `postgres${this.suffix}`;
    this.superuser.password = "loses-it";
    const own = (name: DatabaseName): URL => {
      const url = new URL(environmentOf(name)[DATABASES[name]]!);
      url.host = this.superuser.host;
      url.username += this.suffix;
      url.pathname += this.suffix;
      return url;
    };
    this.urls = { users: own("users"), products: own("products"), orders: own("orders") };
  }

  /** Runs the script as the image does: as its superuser. */
  async initialise(runScript: RunScript): Promise<void> {
    const { username, password } = this.superuser;
    const exists = (await asAdmin(`select 1 from pg_roles where rolname = '${username}'`)).length > 0;
    await asAdmin(`${exists ? "alter" : "create"} role ${username} superuser login password '${password}'`);
    const env = databaseNames().map(([service, variable]) => [variable, this.urls[service].href]);
    await runScript(this.superuser.href, Object.fromEntries(env) as Env);
  }

  /** What is stored of the passwords, by role. */
  async passwords(): Promise<Record<string, unknown>> {
    const rows = await asAdmin(`select rolname, rolpassword from pg_authid where rolname ~ '${this.suffix}$'`);
    return Object.fromEntries(rows.map(([role, password]) => [String(role).replace(this.suffix, ""), password]));
  }

  async drop(): Promise<void> {
    for (const { pathname, username } of Object.values(this.urls)) {
      await asAdmin(`drop database if exists ${pathname.slice(1)} with (force)`);
      await asAdmin(`drop role if exists ${username}`);
    }
    await asAdmin(`drop role if exists ${this.superuser.username}`);
  }
}

const asAdmin = (sql: string): Promise<unknown[][]> => query(process.env["TEST_POSTGRES_URL"]!, sql);

async function query(url: string, sql: string): Promise<unknown[][]> {
  const client = new Postgres({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<unknown[]>({ text: sql, rowMode: "array" })).rows;
  } finally {
    await client.end();
  }
}

type RunScript = (url: string, env: Env) => Promise<void>;
const SCRIPT = "docker/postgres-init.sql";

const withPsql: RunScript = async (url, env) => {
  await run("psql", [url, "--no-psqlrc", "--file", SCRIPT], { cwd: ROOT, env: { ...process.env, ...env } });
};

/** \getenv came with version 15. */
async function hasPsql(): Promise<boolean> {
  try {
    return parseInt(/\d+/.exec((await run("psql", ["--version"])).stdout)?.[0] ?? "") >= 15;
  } catch {
    return false;
  }
}

/** What psql makes of \getenv, :'variable' and \gexec: where PostgreSQL comes from npm alone, there is no psql. */
const withoutPsql: RunScript = async (url, env) => {
  const client = new Postgres({ connectionString: url });
  await client.connect();
  try {
    const variables: Record<string, string> = {};
    let statement = "";
    for (const line of textOf(SCRIPT).split(/\r?\n/)) {
      const [command, name = "", variable = ""] = line.split(" ");
      if (command === "\\getenv") variables[name] = env[variable] ?? "";
      else if (command === "\\gexec") {
        const { rows } = await client.query<string[]>({ text: statement, rowMode: "array" });
        for (const sql of rows.flat()) await client.query(sql);
        statement = "";
      } else if (!/^(--|\\)/.test(line)) {
        statement += line.replace(/:'(\w+)'/g, (_, used: string) => client.escapeLiteral(variables[used]!)) + "\n";
        if (!line.endsWith(";")) continue;
        await client.query(statement);
        statement = "";
      }
    }
  } finally {
    await client.end();
  }
};

describe.each([
  ["by psql", withPsql],
  ["without psql", withoutPsql],
])("docker/postgres-init.sql %s", (_how, runScript) => {
  let cluster: Cluster | undefined;

  beforeEach(async () => {
    cluster = undefined;
    if (runScript === withPsql && !(await hasPsql())) {
      console.warn("skipped: there is no psql of version 15 or newer");
      return;
    }
    cluster = new Cluster();
    await cluster.initialise(runScript);
  });

  afterEach(() => cluster?.drop());

  test("each role owns its database, and is shut out from the others", async () => {
    if (!cluster) return;
    for (const role of Object.values(cluster.urls)) {
      for (const database of Object.values(cluster.urls)) {
        const url = new URL(role);
        url.pathname = database.pathname;
        if (role === database) await query(url.href, "create extension pg_trgm; create table mine ()");
        else await expect(query(url.href, "select 1")).rejects.toMatchObject({ code: "42501" });
      }
    }
  });

  test("run again with a new password, it sets that and keeps the data; the superuser has none", async () => {
    if (!cluster) return;
    const { orders } = cluster.urls;
    await query(orders.href, "create table kept as select 42 as answer");
    const before = await cluster.passwords();
    orders.password = "it's-new";
    await cluster.initialise(runScript);

    expect(await query(orders.href, "select answer from kept")).toEqual([[42]]);
    const after = await cluster.passwords();
    const scram = expect.stringMatching(/^SCRAM-SHA-256/) as string;
    expect(after).toEqual({ users_svc: scram, products_svc: scram, orders_svc: scram, postgres: null });
    expect(after["orders_svc"]).not.toBe(before["orders_svc"]);
  });
});

/** Makes what the image holds, as the Dockerfile does: the sources that .dockerignore lets through, built. */
async function buildImage(directory: string): Promise<void> {
  const sources = [...textOf(".dockerignore").matchAll(/^!(.+)$/gm)].map(([, name]) => name!);
  for (const name of sources) await cp(path.join(ROOT, name), path.join(directory, name), { recursive: true });
  await symlink(path.join(ROOT, "node_modules"), path.join(directory, "node_modules"), "junction");
  await run("npm", ["run", "build"], { cwd: directory, shell: process.platform === "win32" }).catch((cause: unknown) => {
    throw new Error(`npm run build failed: ${(cause as { stdout: string }).stdout}`, { cause });
  });
}

describe("the shop as compose runs it", () => {
  const namespace = uniqueNamespace();
  const nodeId = (name: ServiceName): string => `${name}-${namespace}`;
  let cluster: Cluster;
  let image: string;
  let amqp: string | undefined;
  let shop: Readonly<Record<ServiceName, NodeProcess>> | undefined;

  beforeAll(async () => {
    cluster = new Cluster();
    image = await mkdtemp(path.join(tmpdir(), "shop-image-"));
    amqp = await amqpUrl();
    await buildImage(image);
    if (amqp === undefined) return;
    await cluster.initialise(withoutPsql);
    const started = SERVICES.map(async (name) => [name, await startProcess(container(name, amqp!))] as const);
    shop = Object.fromEntries(await Promise.all(started)) as Record<ServiceName, NodeProcess>;
    const gateway = new Client(shop.api.url!);
    await until("the nodes know each other", async () => (await gateway.get("/health")).status === 200);
  }, 120_000);

  afterAll(async () => {
    await killProcesses();
    if (amqp !== undefined) await forget(amqp, namespace, SERVICES.map(nodeId));
    await cluster.drop();
    await rm(image, { recursive: true, force: true });
  });

  /** A service's container, with this machine's servers in place of postgres and rabbitmq, and ports that are free. */
  function container(name: ServiceName, rabbitmq: string) {
    const ofContainer = Object.entries(environmentOf(name)).filter(([variable]) => variable !== "OPS_PORT");
    const databases = databaseNames().filter(([service]) => service === name);
    return {
      command: imageCommand("CMD"),
      cwd: image,
      services: [name],
      env: {
        ...Object.fromEntries(ofContainer),
        ...Object.fromEntries(databases.map(([service, variable]) => [variable, cluster.urls[service].href])),
        TRANSPORTER: rabbitmq,
        NAMESPACE: namespace,
        NODE_ID: nodeId(name),
        BCRYPT_COST: "4",
      },
    };
  }

  test("what is built needs nothing that the image leaves out", async () => {
    const { dependencies } = JSON.parse(textOf("package.json")) as { dependencies: Record<string, string> };
    const known = new Set([...Object.keys(dependencies), ...builtinModules]);
    const built = (await readdir(path.join(image, "dist"), { recursive: true })).filter((file) => file.endsWith(".js"));
    expect(built).toContain(path.join("scripts", "start.js"));
    for (const file of built) {
      const code = await readFile(path.join(image, "dist", file), "utf8");
      const imported = [...code.matchAll(/\brequire\("(?!\.|node:)((?:@[^/"]+\/)?[^/"]+)/g)].map(([, name]) => name!);
      expect({ file, missing: imported.filter((name) => !known.has(name)) }).toEqual({ file, missing: [] });
    }
    for (const [service] of databaseNames()) expect(existsSync(path.join(image, "dist/services", service, "migrations"))).toBe(true);
  });

  test("an order of three is confirmed, and the stock falls from 50 to 47", async () => {
    if (!shop) return;
    const client = new Client(shop.api.url!);
    await client.signUp();
    const product = await client.createProduct({ quantity: 50 });
    const placed = await client.order(product, 3);
    expect(placed).toMatchObject({ status: 201, body: { status: "PENDING" } });
    expect(await client.decided(Number(placed.body["id"]))).toMatchObject({ status: "CONFIRMED" });
    expect(await client.quantityOf(product)).toBe(47);
  });

  test("SIGTERM ends each node with exit code 0; the image's health check tells before from after", async () => {
    if (!shop) return;
    const [program = "", ...args] = imageCommand("HEALTHCHECK");
    const check = ({ ops }: NodeProcess): Promise<unknown> => run(program, args, { env: { OPS_PORT: new URL(ops).port } });
    const all = Object.values(shop);
    await Promise.all(all.map(check));
    expect(await Promise.all(all.map((node) => node.stop()))).toEqual([0, 0, 0, 0]);
    for (const node of all) await expect(check(node)).rejects.toMatchObject({ code: 1 });
  });
});
