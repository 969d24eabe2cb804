import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, openSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { readIfThere, readPidFile } from "../scripts/postgres-binaries";
import { freePorts } from "../testkit/free-ports";
import { childrenOf, cpuOf, difference, memoryOf, treeSeconds, type Roles } from "../testkit/process-stats";
import { isOk } from "../testkit/program";
import { ROOT } from "../testkit/repository";
import { sql } from "../testkit/sql";
import { spread, type Spread } from "../testkit/statistics";
import { eventually } from "../testkit/until";
import { machine, table } from "./report";
import { progress, type Setup } from "./setup";
import { startShop } from "./shop";
import { ONE_EACH } from "./targets";

const ROUNDS = 3;
/** Seconds. */
const [SETTLE, IDLE] = [8, 30];
const IDLE_CPU = 1;

interface IdleCost {
  what: string;
  /** % of one core, and MB, by process */
  cpu: Record<string, number>;
  rss: Record<string, number>;
  /** Transactions per second, by database. */
  queries: Record<string, number>;
}

/** Measures how long `npm start` takes, and what an idle shop costs. */
export async function start(setup: Setup, out: string): Promise<boolean> {
  const [firsts, laters]: [number[], number[]] = [[], []];
  const idle: IdleCost[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const dataDir = mkdtempSync(path.join(setup.folder, "data-"));
    const first = await npmStart(setup, dataDir);
    firsts.push(first.took);
    await first.stop();
    const later = await npmStart(setup, dataDir);
    laters.push(later.took);
    progress(`npm start: ${first.took.toFixed(1)} s with an empty DATA_DIR, ${later.took.toFixed(1)} s later`);
    if (round === ROUNDS - 1) idle.push(await idleAlone(dataDir, later.pid));
    await later.stop();
  }
  idle.push(await idleTogether(setup));

  const clean = idle.every(({ cpu }) => Object.values(cpu).every((percent) => percent < IDLE_CPU));
  const text = report(spread(firsts), spread(laters), idle, clean);
  mkdirSync(out, { recursive: true });
  writeFileSync(path.join(out, "start.json"), JSON.stringify({ machine: machine(), firsts, laters, idle }, undefined, 1));
  writeFileSync(path.join(out, "start.md"), text);
  console.log(text);
  return clean;
}

/** Starts the source tree, as after `npm ci`, and waits until /health is ok. */
async function npmStart(setup: Setup, dataDir: string): Promise<{ took: number; pid: number; stop: () => Promise<void> }> {
  const [port = 0] = await freePorts(1);
  const log = openSync(path.join(setup.logs, "npm-start.log"), "a");
  const { PATH = "", HOME = "" } = process.env;
  const env = { PATH, HOME, PORT: String(port), DATA_DIR: dataDir, LOG_LEVEL: "warn" };
  const since = performance.now();
  const npm = spawn("npm", ["start", "--silent"], { cwd: ROOT, env, stdio: ["ignore", log, log], detached: true });
  const ended = once(npm, "exit");
  const stop = async (): Promise<void> => {
    for (const pid of childrenOf(npm.pid ?? 0)) process.kill(pid, "SIGTERM"); // npm does not wait for its child if it receives the signal itself
    await ended;
  };
  setup.onStop(() => (npm.exitCode === null && npm.signalCode === null ? stop() : Promise.resolve()));
  await eventually("npm start is ready", () => npm.exitCode !== null || isOk(`http://127.0.0.1:${port}/health`), 120_000, 10);
  if (npm.exitCode !== null) throw new Error(`npm start exited: ${readIfThere(path.join(setup.logs, "npm-start.log")).slice(-2_000)}`);
  const took = (performance.now() - since) / 1_000;
  return { took, pid: childrenOf(npm.pid ?? 0)[0] ?? 0, stop };
}

async function idleAlone(dataDir: string, pid: number): Promise<IdleCost> {
  const { pid: postmaster, port } = readPidFile(path.join(dataDir, "postgres"));
  const password = readFileSync(path.join(dataDir, "postgres.password"), "utf8");
  const url = `postgres://postgres:${password}@127.0.0.1:${port}/postgres`;
  return idleOf("npm start, one process", { shop: [pid] }, postmaster, url);
}

async function idleTogether(setup: Setup): Promise<IdleCost> {
  const shop = await startShop(setup, { key: "shop", topology: ONE_EACH });
  const roles = Object.fromEntries(shop.nodes.map(({ name, pid }) => [name, [pid]]));
  return idleOf("shop 1+1+1+1 over RabbitMQ", roles, setup.postmaster, setup.postgres.url("postgres"));
}

async function idleOf(what: string, roles: Roles, postmaster: number, admin: string): Promise<IdleCost> {
  progress(`${what}: idle for ${IDLE} s`);
  await pause(SETTLE * 1_000);
  const before = { ...cpuOf(roles), postgres: treeSeconds(postmaster) };
  const queriesBefore = await transactions(admin);
  await pause(IDLE * 1_000);
  const spent = difference(before, { ...cpuOf(roles), postgres: treeSeconds(postmaster) });
  const queries = difference(queriesBefore, await transactions(admin));
  const perSecond = (values: Record<string, number>, factor = 1): Record<string, number> =>
    Object.fromEntries(Object.entries(values).map(([name, value]) => [name, (factor * value) / IDLE]));
  return { what, cpu: perSecond(spent, 100), rss: memoryOf(roles), queries: perSecond(queries) };
}

/** Transactions so far, by database, read in a database that is not the shop's. Backends report them about once per second. */
async function transactions(admin: string): Promise<Record<string, number>> {
  const rows = await sql<{ name: string; count: number }>(
    admin,
    `select datname as name, (xact_commit + xact_rollback)::float8 as count from pg_stat_database where datname ~ '(users?|products?|orders?)(_db)?$'`,
  );
  return Object.fromEntries(rows.map(({ name, count }) => [name, count]));
}

function report(first: Spread, later: Spread, idle: readonly IdleCost[], clean: boolean): string {
  const range = ({ median, min, max }: Spread): string => `${median.toFixed(1)} s (${min.toFixed(1)}–${max.toFixed(1)})`;
  const show = (values: Record<string, number>, digits: number): string =>
    Object.entries(values)
      .map(([name, value]) => `${name} ${value.toFixed(digits)}`)
      .join(", ");
  return `# Start and idle cost

From the call of \`npm start\` until /health is ok, ${ROUNDS} times: ${range(first)} with an empty DATA_DIR, ${range(later)} later.

${table(
  ["idle", "% of a core", "RSS MB", "transactions per second"],
  idle.map(({ what, cpu, rss, queries }) => [what, show(cpu, 2), show(rss, 0), show(queries, 2)]),
)}

Goal: each process below ${IDLE_CPU} % of a core: ${clean ? "reached" : "NOT REACHED"}
`;
}
