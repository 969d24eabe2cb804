import { mkdtemp, rm } from "node:fs/promises";
import { cpus, tmpdir, totalmem } from "node:os";
import path from "node:path";
import { Client } from "pg";
import { startEmbeddedPostgres } from "../scripts/embedded-postgres";
import { ADMIN } from "../testkit/admin";
import { databaseNames } from "../config";
import { DATABASE_NAMES } from "../scripts/node";
import { startProcess, type NodeProcess } from "../testkit/node-process";
import { rssOf } from "../testkit/process-stats";
import { fill, type Actors, type Databases } from "./scale/fill";
import { Visitor } from "./scale/http";
import { logPlans, PLAN_SETTINGS, plansSince, sizeOf, type Plan } from "./scale/plans";
import { figure, markdown, write, type Figure, type Measured } from "./scale/report";
import { findPlaces, probes, type Probe, type Tokens } from "./scale/routes";

export interface ScaleOptions {
  /** Products and orders at each step, ascending; 1,000 at least. */
  readonly sizes: readonly number[];
  /** Folder of scale.json and scale.md. */
  readonly out: string;
  /** Requests per reading route; writing routes get a third. */
  readonly requests: number;
}

const ROUNDS = 10;
/** Maximum time per route and round, in ms: slow routes get fewer requests. */
const MAX_MS = 500;
/** A prepared statement may get another plan at its sixth execution; the last plan is reported. */
const REPEATS_FOR_PLAN = 7;

/** Default durability, with enough memory for a million orders. */
const SETTINGS = { ...PLAN_SETTINGS, shared_buffers: "1GB", max_wal_size: "8GB" };

const say = (line: string): void => void process.stderr.write(`${line}\n`);

/** Measures how the time of each route grows from a thousand products and orders to a million, and reports the query plans. */
export async function scale({ sizes, out, requests }: ScaleOptions): Promise<void> {
  if (sizes.length === 0 || sizes.some((size, i) => !Number.isSafeInteger(size) || size < 1_000 || size <= (sizes[i - 1] ?? 0)))
    throw new Error("--sizes takes ascending whole numbers from 1000 on, comma separated");
  if (!(requests > 0)) throw new Error("--requests takes a number above 0");
  const dataDir = await mkdtemp(path.join(tmpdir(), "shop-scale-"));
  const names = Object.values(DATABASE_NAMES);
  const stops: (() => Promise<unknown>)[] = [() => rm(dataDir, { recursive: true, force: true })];
  const measureAll = async (): Promise<void> => {
    const server = await startEmbeddedPostgres({ dataDir, databases: names, settings: SETTINGS });
    stops.push(() => server.stop());
    const connect = async (name: string): Promise<Client> => {
      const client = new Client({ connectionString: server.url(name), application_name: "bench" });
      client.on("error", () => undefined); // the running statement then fails with the reason
      await client.connect();
      stops.push(() => client.end());
      return client;
    };
    const env = {
      ...Object.fromEntries(databaseNames().map(([service, variable]) => [variable, server.url(DATABASE_NAMES[service])])),
      ADMIN_EMAIL: ADMIN.email,
      ADMIN_PASSWORD: ADMIN.password,
      ACCESS_TOKEN_TTL: "86400",
      RATE_LIMIT_REGISTER: "0", // POST /register is measured as well
      LOG_LEVEL: "warn",
    };
    const databases = {
      users: await connect(DATABASE_NAMES.users),
      products: await connect(DATABASE_NAMES.products),
      orders: await connect(DATABASE_NAMES.orders),
    };
    const bench = new Bench(databases, path.join(dataDir, "postgres.log"), env, requests);
    stops.push(() => bench.stop());

    const measured: Measured[] = [];
    for (const size of sizes) {
      measured.push(await bench.measure(size));
      await write(out, measured, MACHINE);
    }
    process.stdout.write(markdown(measured, MACHINE));
    say(`written to ${out}`);
  };
  const interrupted = new Promise<never>((_resolve, reject) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      const end = (): void => {
        reject(new Error(`stopped by ${signal}`));
      };
      process.once(signal, end);
      stops.unshift(() => Promise.resolve(process.off(signal, end))); // last of all
    }
  });
  try {
    await Promise.race([measureAll(), interrupted]);
  } finally {
    for (const stop of stops.reverse()) await stop();
  }
}

const MACHINE = `Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model ?? "?"}, ${Math.round(totalmem() / 2 ** 30)} GiB; the shop runs in one process, PostgreSQL on the same machine.`;

class Bench {
  private shop: NodeProcess | undefined;
  private actors: (Actors & { tokens: Tokens }) | undefined;
  /** Increases with each request, so that no e-mail address or row is used twice. */
  private turn = 0;

  constructor(
    private readonly databases: Databases,
    private readonly logFile: string,
    private readonly env: Readonly<Record<string, string>>,
    private readonly requests: number,
  ) {}

  async measure(size: number): Promise<Measured> {
    say(`\n${size} products and orders`);
    // The first start creates the tables.
    const actors = (this.actors ??= await this.within((visitor) => signUp(visitor)));
    await fill(this.databases, size, actors, (line) => {
      say(`  ${line}`);
    });
    const before = await this.updates();
    const { figures, audit } = await this.within(async (visitor, shop) => {
      const routes = probes(await findPlaces(this.databases, actors), actors.tokens, actors.seller);
      return { figures: await this.time(visitor, routes), audit: await timeAudit(visitor, actors.tokens, shop.pid) };
    });
    const after = await this.updates();
    const { plans, background } = await this.explain();
    return {
      size,
      figures,
      plans,
      background,
      audit,
      hot: (after.hot - before.hot) / Math.max(1, after.all - before.all),
      bytes: await this.bytes(),
    };
  }

  async stop(): Promise<void> {
    const { shop } = this;
    this.shop = undefined;
    await shop?.stop();
  }

  private async within<T>(work: (visitor: Visitor, shop: NodeProcess) => Promise<T>): Promise<T> {
    const shop = (this.shop = await startProcess({ env: this.env }));
    const visitor = new Visitor(shop.url ?? "");
    try {
      return await work(visitor, shop);
    } catch (error) {
      say(shop.output());
      throw error;
    } finally {
      visitor.close();
      await this.stop();
    }
  }

  /** Measures in rounds over all routes, so that other load on the machine affects all of them. */
  private async time(visitor: Visitor, routes: readonly Probe[]): Promise<Record<string, Figure>> {
    const times = new Map<Probe, number[]>(routes.map((route) => [route, []]));
    const failed = new Map<Probe, number>();
    for (let round = -1; round < ROUNDS; round++) {
      for (const [route, taken] of times) {
        const n = Math.ceil(this.requests / ROUNDS / (route.writes ? 3 : 1));
        const enough = performance.now() + MAX_MS;
        for (let i = 0; i < n && (i === 0 || performance.now() < enough); i++) {
          const request = route.request(++this.turn);
          const { status, took, text } = await visitor.send(request);
          if (status === 503) failed.set(route, (failed.get(route) ?? 0) + 1);
          else if (status >= 400) throw new Error(`${request.method} ${request.path}: ${status} ${text}`);
          if (round >= 0) taken.push(took);
        }
        if (route.writes) await settled(this.databases.orders);
      }
      if (round < 0) say("  warmed up");
    }
    return Object.fromEntries([...times].map(([route, taken]) => [route.name, { ...figure(taken), failed: failed.get(route) ?? 0 }]));
  }

  /** Logs the plans in a separate run, since that takes time. The shop's start is logged as well. */
  private async explain(): Promise<Pick<Measured, "plans" | "background">> {
    const { databases, logFile, actors } = this;
    if (actors === undefined) throw new Error("nothing was measured before");
    await logPlans(databases.orders, true);
    const start = await sizeOf(logFile);
    const plans: Record<string, Plan[]> = {};
    try {
      await this.within(async (visitor) => {
        for (const route of probes(await findPlaces(databases, actors), actors.tokens, actors.seller)) {
          let place = 0;
          for (let i = 0; i < REPEATS_FOR_PLAN; i++) {
            if (route.writes) await settled(databases.orders);
            place = await sizeOf(logFile);
            await visitor.send(route.request(++this.turn));
          }
          if (route.writes) await settled(databases.orders);
          plans[route.name] = (await plansSince(logFile, place)).filter((plan) => isOurs(plan) && !isBackground(plan));
        }
      });
    } finally {
      await logPlans(databases.orders, false);
    }
    const background = new Map<string, Plan>();
    for (const plan of await plansSince(logFile, start)) if (isOurs(plan) && isBackground(plan)) background.set(plan.sql, plan);
    return { plans, background: [...background.values()] };
  }

  private async updates(): Promise<{ all: number; hot: number }> {
    await this.databases.products.query("select pg_stat_clear_snapshot()");
    const { rows } = await this.databases.products.query<{ all: string; hot: string }>(
      `select n_tup_upd as "all", n_tup_hot_upd as hot from pg_stat_user_tables where relname = 'products'`,
    );
    return { all: Number(rows[0]?.all), hot: Number(rows[0]?.hot) };
  }

  private async bytes(): Promise<Record<string, number>> {
    const sizes: Record<string, number> = {};
    for (const client of [this.databases.products, this.databases.orders]) {
      const { rows } = await client.query<{ name: string; bytes: string }>(
        `select c.relname as name, pg_relation_size(c.oid) as bytes from pg_class c
         where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'i') and c.relname <> 'schema_migrations' order by c.relkind desc, c.relname`,
      );
      for (const { name, bytes } of rows) sizes[name] = Number(bytes);
    }
    return sizes;
  }
}

/** Whether the statement is the shop's. Lists use separate connections. */
const isOurs = ({ service }: Plan): boolean => /^(users|products|orders)(-lists)?$/.test(service);
/** The relay, its detection of replies, and retention. Other work after a response counts for its route. */
const isBackground = ({ sql }: Plan): boolean =>
  /^with (flights|recursive lost|watched)|^delete from outbox|^insert into outbox_events|^select 1$/.test(sql);

async function signUp(visitor: Visitor): Promise<Actors & { tokens: Tokens }> {
  const login = async (credentials: { email: string; password: string }): Promise<string> =>
    (await visitor.json<{ access_token: string }>({ method: "POST", path: "/token", body: credentials })).access_token;
  const register = async (name: string): Promise<{ id: string; token: string }> => {
    const credentials = { email: `${name}@shop.test`, password: "correct horse battery" };
    const { id } = await visitor.json<{ id: string }>({ method: "POST", path: "/register", body: credentials });
    return { id, token: await login(credentials) };
  };
  const seller = await register("seller");
  const buyer = await register("buyer");
  return { tokens: { buyer: buyer.token, seller: seller.token, admin: await login(ADMIN) }, buyer: buyer.id, seller: seller.id };
}

/** Waits until no outbox row is pending, so that the effects of earlier writes are not measured with later requests. */
async function settled(orders: Client): Promise<void> {
  for (let tries = 0; tries < 1_000; tries++) {
    const { rowCount } = await orders.query(
      "select from outbox where state = 'PENDING' and attempts = 0 or state = 'PENDING' and attempts > 0 limit 1",
    );
    if (rowCount === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error("orders are not settled after 10 s");
}

async function timeAudit(visitor: Visitor, { admin }: Tokens, shop: number): Promise<Measured["audit"]> {
  const since = performance.now();
  let peak = 0;
  const watch = setInterval(() => (peak = Math.max(peak, rssOf(shop))), 100);
  const report = await visitor
    .json<{ ok: boolean; checks: { name: string; ok: boolean; sample: string[] }[] }>({
      method: "GET",
      path: "/admin/consistency",
      token: admin,
    })
    .finally(() => {
      clearInterval(watch);
    });
  const seconds = (performance.now() - since) / 1000;
  say(`  audit: ${seconds.toFixed(1)} s, the shop used at most ${Math.round(peak)} MB, ${report.ok ? "clean" : "VIOLATIONS"}`);
  const broken = report.checks.flatMap((c) => (c.ok ? [] : `${c.name}: ${c.sample.slice(0, 3).join(", ")}`));
  return { seconds, memory: peak, ok: report.ok, broken };
}
