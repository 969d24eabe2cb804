import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "pg";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "../../../scripts/embedded-postgres";
import { ROOT } from "../../../testkit/repository";

// Starts the server, prints its URL and stops it when its standard input ends (or the process does).
const OTHER_PROCESS = `
  const { startEmbeddedPostgres } = require("./scripts/embedded-postgres.ts");
  const [dataDir, ending] = process.argv.slice(1);
  startEmbeddedPostgres({ dataDir, databases: ["shop"], settings: { fsync: "off" } }).then((server) => {
    console.log(server.url("shop"));
    console.log(server.adopted);
    if (ending === "stop") process.stdin.resume().on("end", () => server.stop());
  });`;

let dataDir: string;
let cleanups: (() => unknown)[];

beforeEach(async () => {
  cleanups = [];
  dataDir = await mkdtemp(join(tmpdir(), "embedded postgres "));
});

afterEach(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
  // an orphaned server: its last user was killed, and no other process has adopted it
  if (existsSync(join(dataDir, "postgres/postmaster.pid"))) await start().then((server) => server.stop());
  await rm(dataDir, { recursive: true });
});

async function start(...databases: string[]): Promise<EmbeddedPostgres> {
  const server = await startEmbeddedPostgres({ dataDir, databases, settings: { fsync: "off" } });
  cleanups.push(() => server.stop());
  return server;
}

/** A server that is restarted if it dies, and what is reported about that. */
async function startWatched(): Promise<{ url: string; reports: string[] }> {
  const reports: string[] = [];
  const onDeath = (report: string): void => void reports.push(report);
  const server = await startEmbeddedPostgres({ dataDir, databases: ["shop"], settings: { fsync: "off" }, onDeath });
  cleanups.push(() => server.stop());
  return { url: server.url("shop"), reports };
}
const RUNS_AGAIN = "the embedded PostgreSQL runs again";

function startElsewhere(ending: "stop" | "leave" = "stop") {
  const options = ["--import", "tsx", "--eval", OTHER_PROCESS, dataDir, ending];
  const child = spawn(process.execPath, options, { cwd: ROOT, detached: true, stdio: ["pipe", "pipe", "inherit"] });
  const exit = once(child, "exit");
  cleanups.push(() => killGroup(child));
  const started = (async () => {
    const lines: string[] = [];
    for await (const line of createInterface(child.stdout)) if (lines.push(line) === 2) break;
    return { url: lines[0] ?? "", adopted: lines[1] === "true" };
  })();
  return { child, started, exit, stop: () => (child.stdin.end(), exit) };
}

function killGroup(child: ChildProcess): void {
  if (child.exitCode === null && child.signalCode === null && child.pid) process.kill(-child.pid, "SIGKILL");
}

async function query(url: string, sql: string): Promise<unknown[][]> {
  const client = new Client({ connectionString: url });
  client.on("error", () => undefined); // if the server is killed during the query, the query fails, too
  await client.connect();
  try {
    const { rows } = await client.query<unknown[]>({ text: sql, rowMode: "array" });
    return rows;
  } finally {
    await client.end();
  }
}

async function postmasterPid(): Promise<number> {
  return Number.parseInt(await readFile(join(dataDir, "postgres/postmaster.pid"), "utf8"));
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 20_000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`still not: ${String(condition)}`);
    await sleep(5);
  }
}

async function isEnded(url: string): Promise<boolean> {
  return query(url, "select 1").then(
    () => false,
    () => true,
  );
}

test("a first start creates a cluster with the databases", async () => {
  const server = await start("users", 'Bücher "B"');

  expect(server.adopted).toBe(false);
  expect(await query(server.url("users"), "select current_database()")).toEqual([["users"]]);
  expect(await query(server.url('Bücher "B"'), "select current_database()")).toEqual([['Bücher "B"']]);
  expect(await query(server.url("users"), "select upper('é'), 'Z' < 'a', 'z' < 'é'")).toEqual([["É", true, true]]);
  expect(await query(server.url("users"), "show listen_addresses")).toEqual([["127.0.0.1"]]);
  expect((await stat(join(dataDir, "postgres.password"))).mode & 0o777).toBe(0o600);
});

test("a wrong password is refused", async () => {
  const server = await start("users");

  const url = server.url("users").replace(/:[^:@]+@/, ":guess@");
  await expect(query(url, "select 1")).rejects.toMatchObject({ code: "28P01" });
});

test("a second start keeps the data and creates missing databases", async () => {
  const first = await start("users");
  await query(first.url("users"), "create table kept as select 42 as response");
  await first.stop();
  expect(await isEnded(first.url("users"))).toBe(true);

  const second = await start("users", "orders");

  expect(second.adopted).toBe(false);
  expect(await query(second.url("users"), "select response from kept")).toEqual([[42]]);
  expect(await query(second.url("orders"), "select current_database()")).toEqual([["orders"]]);
});

test("a postmaster was killed: the next start has the data", async () => {
  const first = await start("users");
  await query(first.url("users"), "create table kept as select 42 as response");
  process.kill(await postmasterPid(), "SIGKILL");

  const second = await start("users");

  expect(second.adopted).toBe(false);
  expect(await query(second.url("users"), "select response from kept")).toEqual([[42]]);
});

test("a postmaster was killed while a query was running: the next start waits for its end", async () => {
  const first = await start("users");
  const busy = "do $$ begin while clock_timestamp() < now() + interval '1 s' loop end loop; end $$";
  const abandoned = query(first.url("users"), busy).catch(() => "disconnected");
  const active = "select 1 from pg_stat_activity where state = 'active' and query like 'do %'";
  await until(async () => (await query(first.url("postgres"), active)).length === 1);
  process.kill(await postmasterPid(), "SIGKILL");

  const second = await start("users");

  expect(await query(second.url("users"), "select 1")).toEqual([[1]]);
  await abandoned;
});

test("a postmaster was killed and its pid belongs to another process: the server starts", async () => {
  const first = await start("users");
  const pid = await postmasterPid();
  process.kill(pid, "SIGKILL");
  await until(() => isEnded(first.url("users")));
  const { uid, gid } = await stat(join(dataDir, "postgres"));
  const stranger = spawn("sleep", ["600"], { cwd: "/", uid, gid });
  cleanups.push(() => stranger.kill());
  const file = join(dataDir, "postgres/postmaster.pid");
  await writeFile(file, (await readFile(file, "utf8")).replace(String(pid), String(stranger.pid)));

  const second = await start("users");

  expect(second.adopted).toBe(false);
  expect(await query(second.url("users"), "select 1")).toEqual([[1]]);
  expect(stranger.signalCode).toBeNull();
});

test("the only user was killed: the next start adopts its server, and stops it", async () => {
  const user = startElsewhere();
  const { url } = await user.started;
  await query(url, "create table kept as select 42 as response");
  killGroup(user.child);
  await user.exit;

  const next = await start("shop");

  expect(next.adopted).toBe(true);
  expect(next.url("shop")).toBe(url);
  expect(await query(url, "select response from kept")).toEqual([[42]]);
  const guest = startElsewhere();
  expect(await guest.started).toEqual({ url, adopted: true });
  await guest.stop();
  expect(await isEnded(url)).toBe(false); // it has another user
  await next.stop();
  expect(await isEnded(url)).toBe(true);
});

test("the only user and its postmaster were killed: the next start has the data", async () => {
  const user = startElsewhere();
  const { url } = await user.started;
  await query(url, "create table kept as select 42 as response");
  const pid = await postmasterPid();
  killGroup(user.child);
  process.kill(pid, "SIGKILL");
  await user.exit;

  const next = await start("shop");

  expect(next.adopted).toBe(false);
  expect(await query(next.url("shop"), "select response from kept")).toEqual([[42]]);
});

test("a second process adopts a running server and does not stop it while the first one uses it", async () => {
  const first = await start("shop");
  const second = startElsewhere();

  expect(await second.started).toEqual({ url: first.url("shop"), adopted: true });
  expect(await second.stop()).toEqual([0, null]);
  expect(await query(first.url("shop"), "select 1")).toEqual([[1]]);
  await first.stop();
  expect(await isEnded(first.url("shop"))).toBe(true);
});

test("the process that started the server stops first: the second one keeps it, and stops it as its last user", async () => {
  const first = startElsewhere();
  const { url } = await first.started;
  const second = await start("shop");
  expect(second.adopted).toBe(true);

  expect(await first.stop()).toEqual([0, null]);

  expect(await query(url, "select 1")).toEqual([[1]]);
  await second.stop();
  expect(await isEnded(url)).toBe(true);
});

test("the process that started the server is killed: the second one keeps it, and stops it as its last user", async () => {
  const first = startElsewhere();
  const { url } = await first.started;
  const second = await start("shop");
  killGroup(first.child);
  await first.exit;

  expect(await query(url, "select 1")).toEqual([[1]]);
  await second.stop();
  expect(await isEnded(url)).toBe(true);
});

test("a postmaster is killed while a process watches it: the server runs again at the same URL, with the data", async () => {
  const { url, reports } = await startWatched();
  await query(url, "create table kept as select 42 as response");
  process.kill(await postmasterPid(), "SIGKILL");

  await until(() => reports.at(-1) === RUNS_AGAIN);

  expect(reports[0]).toMatch(/^the embedded PostgreSQL has terminated and is restarted\. The end of .*postgres\.log:\n/);
  expect(await query(url, "select response from kept")).toEqual([[42]]);
});

test("a watched server can't be restarted: the reason in its log is reported, and it runs again when that is remedied", async () => {
  const { url, reports } = await startWatched();
  const file = join(dataDir, "postgres/postgresql.auto.conf");
  const sound = await readFile(file, "utf8");
  await writeFile(file, `${sound}no_such_parameter = 1\n`);
  process.kill(await postmasterPid(), "SIGKILL");
  const failed = (report: string): boolean =>
    /^the embedded PostgreSQL can't be restarted, next try in [\d.]+ s: postgres exited with 1: [^]*no_such_parameter/.test(report);
  await until(() => reports.some(failed));

  await writeFile(file, sound);
  await until(() => reports.at(-1) === RUNS_AGAIN);

  expect(await query(url, "select 1")).toEqual([[1]]);
});

test("PGSSLMODE and PGOPTIONS are set for other servers: they don't affect this one", async () => {
  process.env.PGSSLMODE = "require";
  process.env.PGOPTIONS = "-c default_transaction_read_only=on";
  try {
    const server = await start("shop");
    await server.stop();
    expect(server.adopted).toBe(false);
  } finally {
    delete process.env.PGSSLMODE;
    delete process.env.PGOPTIONS;
  }
});

test("simultaneous starts lead to one server", async () => {
  const others = [startElsewhere(), startElsewhere()];
  const here = start("shop").then((server) => ({ url: server.url("shop"), adopted: server.adopted }));

  const started = await Promise.all([here, ...others.map((other) => other.started)]);

  expect(new Set(started.map(({ url }) => url)).size).toBe(1);
  expect(started.map(({ adopted }) => adopted).sort()).toEqual([false, true, true]);
  expect(await query(started[0].url, "select 1")).toEqual([[1]]);
});

test("an initdb was killed half-way: the next start repeats it", async () => {
  const killed = startElsewhere();
  const begun = async () => (await readdir(dataDir)).some((name) => existsSync(join(dataDir, name, "PG_VERSION")));
  await until(begun);
  killGroup(killed.child);
  await killed.exit;
  expect(existsSync(join(dataDir, "postgres"))).toBe(false);

  const server = await start("shop");

  expect(await query(server.url("shop"), "select 1")).toEqual([[1]]);
  expect((await readdir(dataDir)).filter((name) => name.startsWith("initdb-"))).toEqual([]);
});

test("a process exits on its own, even if it has not stopped its server", async () => {
  const other = startElsewhere("leave");
  const { url } = await other.started;
  other.child.stdin.end();

  expect(await other.exit).toEqual([0, null]);
  expect(await query(url, "select 1")).toEqual([[1]]);
});

test("stopping twice has the effect of stopping once", async () => {
  const first = await start("shop");
  await Promise.all([first.stop(), first.stop()]);
  const second = await start("shop");
  await first.stop();

  expect(await query(second.url("shop"), "select 1")).toEqual([[1]]);
});

test("an impossible data directory: the error names the cause and a workaround", async () => {
  const file = join(dataDir, "file");
  await writeFile(file, "");

  const refused = startEmbeddedPostgres({ dataDir: file, databases: [] });

  await expect(refused).rejects.toThrow(/EEXIST.*\n.*_DATABASE_URL/);
});
