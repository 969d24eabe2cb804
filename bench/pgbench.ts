import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { NIL_ID } from "../contracts/contract";
import type { Database, Query } from "../mixins/database";
import { migrate } from "../mixins/migrations";
import { insertOrders } from "../services/orders/insert.store";
import { difference, treeSeconds, type Cpu } from "../testkit/process-stats";
import { ROOT } from "../testkit/repository";
import { idOf, PRODUCTS } from "../testkit/seed-products";
import { quantiles } from "../testkit/statistics";
import type { Measured } from "./load";
import type { Setup } from "./setup";
import { USERS } from "./shop";

const CLIENTS = 32;
const THREADS = 2;
/** Seconds. */
const WARM_UP = 1;

/** Values that pgbench substitutes for the statement's parameters: an order of one line. Numbers that are not listed here keep their value. */
const VALUES: Readonly<Record<string, string>> = {
  1: `array[${idOf(":user")}]`,
  2: "array[gen_random_uuid()::text]",
  3: "array['RBNvo1WzZ4oRRq0W9-hknpT7T8If536DEMBg9hyq_4o']",
  4: "array[1999]",
  5: `array[jsonb_build_array(jsonb_build_object('product_id', ${idOf(":product")}, 'name', 'Desk lamp', 'unit_price_cents', 1999, 'quantity', 1))]`,
  9: "array[1]", // weight
  10: "array[false]", // not a large order
  11: "array['47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU']",
};

/** Searches PATH, and Debian's folders, which are not in it. */
export function findPgbench(): string | undefined {
  const folders = (process.env.PATH ?? "").split(path.delimiter);
  const debian = "/usr/lib/postgresql";
  if (existsSync(debian)) folders.push(...readdirSync(debian).map((version) => path.join(debian, version, "bin")));
  return folders.map((folder) => path.join(folder, "pgbench")).find((file) => existsSync(file));
}

/** No outbox row is claimed: nothing would settle it, and the statement counts the rows in flight. */
const NO_CLAIMS = { maxInFlight: 0, retryMs: 5_000, windowMs: 5_000 };

/** The store's own statement, captured by a database stub. */
async function statement(): Promise<string> {
  const found: { text: string; values: readonly unknown[] } = { text: "", values: [] };
  const query: Query = (text, values = []) => {
    Object.assign(found, { text, values });
    return Promise.resolve([]);
  };
  const listener = { query, adhoc: query } as unknown as Database;
  await insertOrders(listener, [{ user_id: NIL_ID, idempotency_key: "", request_hash: "", total_cents: 0, lines: [] }], NO_CLAIMS);
  const bound = (_: string, n: string): string => VALUES[n] ?? String(found.values[Number(n) - 1]);
  const text = found.text.replaceAll(/\$(\d+)/g, bound).replaceAll(/\s*\n\s*/g, " ");
  if (!text.includes("insert into orders") || !found.values.every((value, n) => n + 1 in VALUES || typeof value === "number"))
    throw new Error("the statement of insertOrders has changed: adapt bench/pgbench.ts");
  return `\\set user random(1, ${USERS})\n\\set product random(1, ${PRODUCTS})\n${text};\n`;
}

/** The rate at which PostgreSQL alone inserts orders, one at a time on each of 32 connections: the upper bound for orders written individually. */
export class Pgbench {
  private constructor(
    private readonly program: string,
    private readonly setup: Setup,
    private readonly script: string,
  ) {}

  static async prepare(program: string, setup: Setup): Promise<Pgbench> {
    await migrate({ url: setup.postgres.url("limit_orders"), directory: path.join(ROOT, "services/orders/migrations") });
    const script = path.join(setup.folder, "order.sql");
    writeFileSync(script, await statement());
    return new Pgbench(program, setup, script);
  }

  async measure(seconds: number): Promise<Measured> {
    const { hostname, port, username, password, pathname } = new URL(this.setup.postgres.url("limit_orders"));
    const log = path.join(this.setup.folder, "pgbench");
    const whole = WARM_UP + Math.ceil(seconds);
    const args = ["-h", hostname, "-p", port, "-U", username, "-n", "-M", "prepared", "-f", this.script, "-T", String(whole)];
    args.push("-c", String(CLIENTS), "-j", String(THREADS), "-l", "--log-prefix", log, pathname.slice(1));
    const before: Cpu = { postgres: treeSeconds(this.setup.postmaster) };
    const env = { PATH: process.env.PATH, PGPASSWORD: decodeURIComponent(password) };
    const { stdout } = await promisify(execFile)(this.program, args, { env });
    const cpu = difference(before, { postgres: treeSeconds(this.setup.postmaster) });
    const failed = Number(/number of failed transactions: (\d+)/.exec(stdout)?.[1] ?? 0);

    const all = this.takeLogs();
    const begin = (all[0]?.end ?? 0) + WARM_UP;
    const latencies = all.filter(({ end }) => end >= begin && end < begin + seconds).map(({ ms }) => ms);
    if (latencies.length === 0) throw new Error(`pgbench's output:\n${stdout}`);
    const [p50 = 0, p99 = 0] = quantiles(latencies, [0.5, 0.99]);
    return {
      rate: latencies.length / seconds,
      p50,
      p99,
      requests: latencies.length,
      failures: failed > 0 ? { transactions: failed } : {},
      logins: 0,
      refusedLogins: 0,
      cpu: { postgres: (1_000 * (cpu.postgres ?? 0)) / all.length },
      rss: {},
    };
  }

  /** One line per transaction: client, number, microseconds, script, second and microsecond of its end. Sorted by end. */
  private takeLogs(): { end: number; ms: number }[] {
    const files = readdirSync(this.setup.folder).filter((name) => /^pgbench\.\d/.test(name));
    const all = files.flatMap((name) => {
      const file = path.join(this.setup.folder, name);
      const lines = readFileSync(file, "utf8").trimEnd().split("\n");
      rmSync(file);
      return lines.map((line) => {
        const [, , us = 0, , second = 0, microsecond = 0] = line.split(" ").map(Number);
        return { end: second + microsecond / 1e6, ms: us / 1_000 };
      });
    });
    return all.sort((a, b) => a.end - b.end);
  }
}
