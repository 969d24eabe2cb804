import { randomBytes, randomUUID } from "node:crypto";
import { existsSync, readFileSync, readlinkSync, realpathSync } from "node:fs";
import { link, mkdir, mkdtemp, readdir, readFile, rename, rm, truncate, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "pg";
import { codeOf, findPrograms, initialise, launch, type Programs, readIfThere, readPidFile, sendSignal } from "./postgres-binaries";

export interface EmbeddedPostgres {
  readonly url: (database: string) => string;
  /** true if the server was running already, started by a process that is still alive or was killed */
  readonly adopted: boolean;
  /** Stops the server, unless it belongs to another living process. May be called more than once. */
  stop(): Promise<void>;
}

interface Options {
  readonly dataDir: string;
  readonly databases: readonly string[];
  /** parameters for a server started by this call (an adopted one keeps its own), e.g. `{ fsync: "off" }` */
  readonly settings?: Readonly<Record<string, string>>;
  readonly log?: (line: string) => void;
}

type Home = ReturnType<typeof homeIn>;

/** A running server; `process` is the result of `identify` for its postmaster. */
interface Server {
  readonly pid: number;
  readonly port: number;
  readonly process: string;
}

const ANSWER_MS = 60_000; // a server in crash recovery refuses connections for a while
const LOCK_MS = 120_000; // longer than a first start on a slow disk
const STOP_MS = 10_000;
const LOCK = /^postgres\.lock\.(\d+)$/;
const TRANSIENT = /shared memory block .* still in use|postmaster\.pid" already exists|could not create any TCP\/IP/;
const REMEDIES: readonly (readonly [RegExp, string])[] = [
  [/No space left|ENOSPC|quota/i, "The disk is full: make room and start again."],
  [/EACCES|Permission denied/, "The files belong to another user (created by root?): start as that user, or chown them."],
  [/root may not/, "This root user may not change users: start as a normal user."],
  [/ENOENT.*postgres\.password/, "The cluster can't be used without its password: restore that file, or remove the whole directory."],
  [/could not look up effective user ID/, "Start as a user that has an entry in /etc/passwd."],
  [/spawn .* ENOENT|GLIBC/, "The programs need glibc: use a Debian-based image, not Alpine."],
  [/incompatible with server/, "Another version of PostgreSQL created the data: remove the directory to start afresh."],
];

/**
 * Starts PostgreSQL in `<dataDir>/postgres`, creating the cluster and missing databases, or adopts the server that is
 * already running there. Processes that start concurrently share one server, which the first of them owns.
 * @throws an error with the cause and the remedy
 */
export async function startEmbeddedPostgres(options: Options): Promise<EmbeddedPostgres> {
  const directory = resolve(options.dataDir);
  try {
    await mkdir(directory, { recursive: true });
    const home = homeIn(realpathSync(directory));
    return await exclusively(home, () => start(home, options));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const remedies = REMEDIES.filter(([pattern]) => pattern.test(reason)).map(([, remedy]) => remedy);
    remedies.push("To use a PostgreSQL server of your own, set the three *_DATABASE_URL variables.");
    throw new Error(`no embedded PostgreSQL in ${directory}: ${reason}\n${remedies.join("\n")}`, { cause });
  }
}

function homeIn(directory: string) {
  const at = (name: string): string => join(directory, name);
  const files = { passwordFile: at("postgres.password"), ownerFile: at("postgres.owner"), logFile: at("postgres.log") };
  return { directory, cluster: at("postgres"), ...files };
}

async function start(home: Home, options: Options): Promise<EmbeddedPostgres> {
  const { databases, settings, log = () => undefined } = options;
  const programs = await findPrograms(home.cluster);
  if (!existsSync(home.cluster) || (await readdir(home.cluster)).length === 0) {
    log(`creating a PostgreSQL cluster in ${home.cluster}`);
    await createCluster(home, programs, settings?.fsync !== "off");
  }
  const password = await readFile(home.passwordFile, "utf8");
  const running = await findRunning(home, password);
  const mark = newMark();
  // Written before the launch: if we are killed in between, a dead owner remains, which another process can succeed, not an ownerless server.
  if (!running || !isAlive(readIfThere(home.ownerFile))) await writeFile(home.ownerFile, mark);
  const server = running ?? (await launchPatiently(home, programs, settings));
  const url = (database: string): string => urlOf(server.port, password, database);
  try {
    await createDatabases(url("postgres"), databases);
  } catch (error) {
    if (!running) await terminate(server, programs);
    throw error;
  }
  log(`PostgreSQL ${running ? "was running" : "runs"} on 127.0.0.1:${server.port} and logs to ${home.logFile}`);

  const end = async (): Promise<void> => {
    const owner = readIfThere(home.ownerFile);
    if (owner !== mark && isAlive(owner)) return;
    await terminate(server, programs);
    if (owner === mark) await rm(home.ownerFile, { force: true });
  };
  let ended: Promise<void> | undefined;
  const stop = (): Promise<void> => (ended ??= existsSync(home.directory) ? exclusively(home, end) : end());
  return { url, adopted: running !== undefined, stop };
}

/** Creates the cluster in a temporary directory and renames it, so that it is complete or absent, even if we are killed. */
async function createCluster(home: Home, programs: Programs, sync: boolean): Promise<void> {
  for (const name of await readdir(home.directory)) {
    const leftover = name.startsWith("initdb-");
    // an orphaned initdb may still be writing there, hence the retries
    if (leftover) await rm(join(home.directory, name), { recursive: true, force: true, maxRetries: 5 });
  }
  await rm(home.passwordFile, { force: true });
  await writeFile(home.passwordFile, randomBytes(24).toString("base64url"), { mode: 0o600 });
  const draft = await mkdtemp(join(home.directory, "initdb-"));
  await initialise(programs, draft, home.passwordFile, sync);
  await rename(draft, home.cluster);
}

/** Waits for a server that is starting, recovering or shutting down; undefined if none runs on the cluster. */
async function findRunning(home: Home, password: string): Promise<Server | undefined> {
  const deadline = Date.now() + ANSWER_MS;
  for (;;) {
    const { pid, port } = readPidFile(home.cluster);
    const process = identify(pid);
    if (process === undefined || !worksIn(pid, home.cluster)) return undefined;
    try {
      await expectCluster(urlOf(port, password, "postgres"), home.cluster);
      return { pid, port, process };
    } catch (cause) {
      if (Date.now() > deadline || /authentication failed|data directory/.test(String(cause))) {
        const remedy = `stop it or, if it is not PostgreSQL, remove ${join(home.cluster, "postmaster.pid")}`;
        throw new Error(`process ${pid} is not the expected server (${String(cause)}): ${remedy}`, { cause });
      }
      await sleep(50);
    }
  }
}

async function expectCluster(url: string, cluster: string): Promise<void> {
  const { rowCount } = await connected(url, (client) =>
    // the second is for Windows; the third is relative to the process, whose directory worksIn has checked
    client.query("select 1 where current_setting('data_directory') = any($1)", [
      [cluster, cluster.replaceAll("\\", "/"), "/proc/self/cwd"],
    ]),
  );
  if (rowCount !== 1) throw new Error("it has another data directory");
}

// The postmaster's working directory is its data directory: on Linux this distinguishes it from a process that reuses its pid after a reboot.
function worksIn(pid: number, directory: string): boolean {
  if (process.platform !== "linux") return true;
  try {
    return readlinkSync(`/proc/${pid}/cwd`) === realpathSync(directory);
  } catch {
    return false; // it has just terminated, or belongs to another user and is therefore not ours
  }
}

async function launchPatiently(home: Home, programs: Programs, settings: Options["settings"]): Promise<Server> {
  for (let pause = 50; ; pause *= 2) {
    try {
      const { pid, port } = await launch(programs, home.cluster, home.logFile, settings);
      return { pid, port, process: identify(pid) ?? "" };
    } catch (error) {
      // A killed postmaster's children hold its memory briefly, or until their query ends; a free port may be taken meanwhile.
      if (pause > 4000 || !TRANSIENT.test(String(error))) throw error;
      await sleep(pause);
    }
  }
}

/** Fast shutdown, which ends the sessions and writes a checkpoint; if it takes too long, immediate shutdown, which requires recovery. */
async function terminate(server: Server, programs: Programs): Promise<void> {
  const running = (): boolean => identify(server.pid) === server.process;
  for (const signal of ["INT", "QUIT"] as const) {
    try {
      if (running()) sendSignal(programs, server.pid, signal);
    } catch (error) {
      if (running()) throw error;
    }
    const deadline = Date.now() + STOP_MS;
    while (Date.now() < deadline) {
      if (!running()) return;
      await sleep(10);
    }
  }
  throw new Error(`PostgreSQL, process ${server.pid}, terminates neither on SIGINT nor on SIGQUIT`);
}

function urlOf(port: number, password: string, database: string): string {
  return `postgres://postgres:${password}@127.0.0.1:${port}/${encodeURIComponent(database)}`;
}

async function connected<T>(url: string, work: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 10_000 });
  client.on("error", () => undefined); // a lost connection also fails the query, which reports it
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

async function createDatabases(url: string, names: readonly string[]): Promise<void> {
  if (names.length === 0) return;
  await connected(url, async (client) => {
    for (const name of names) {
      const { rowCount } = await client.query("select 1 from pg_database where datname = $1", [name]);
      if (rowCount === 0) await client.query(`create database ${client.escapeIdentifier(name)}`);
    }
  });
}

/**
 * Runs `work` while no other start or stop works on the same directory. The lock is the file with the highest number.
 * It is free if it is empty or its writer has terminated. A lock file is never overwritten, only followed by the next
 * number, so two processes that find the same dead holder can't both succeed it.
 */
async function exclusively<T>({ directory }: Home, work: () => Promise<T>): Promise<T> {
  const lock = await acquire(directory);
  try {
    return await work();
  } finally {
    await truncate(lock);
  }
}

async function acquire(directory: string): Promise<string> {
  const nameOf = (number: number | string): string => join(directory, `postgres.lock.${number}`);
  const numbers = async (): Promise<number[]> => (await readdir(directory)).flatMap((name) => LOCK.exec(name)?.[1] ?? []).map(Number);
  const draft = nameOf(randomUUID());
  const deadline = Date.now() + LOCK_MS;
  for (;;) {
    const last = Math.max(0, ...(await numbers()));
    const holder = readIfThere(nameOf(last));
    if (isAlive(holder)) {
      const pid = Number.parseInt(holder);
      if (Date.now() > deadline) throw new Error(`process ${pid} has been starting or stopping it for two minutes`);
      await sleep(20);
      continue;
    }
    const lock = nameOf(last + 1);
    try {
      await writeFile(draft, newMark());
      await link(draft, lock); // atomic: writing it in place would briefly show others an empty, hence free, lock
    } catch (error) {
      if (codeOf(error) === "EEXIST") continue;
      throw error;
    } finally {
      await rm(draft, { force: true });
    }
    const held = await numbers();
    if (Math.max(...held) === last + 1) {
      for (const number of held) if (number <= last) await rm(nameOf(number), { force: true });
      return lock;
    }
    await rm(lock, { force: true }); // others have taken, freed and removed this number since we looked
  }
}

/** A text unique to this process, even if its pid is reused. */
function newMark(): string {
  return `${identify(process.pid) ?? process.pid} ${randomUUID()}`;
}

function isAlive(mark: string): boolean {
  return mark.split(" ")[0] === identify(Number.parseInt(mark));
}

/** The pid, with the start time if cheaply available, since pids are reused. Undefined if the process has terminated. */
function identify(pid: number): string | undefined {
  if (!(pid > 0)) return undefined;
  try {
    if (process.platform === "linux") {
      const [state, ...fields] = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.split(" ") ?? [];
      // A zombie has terminated, and in a container it may never be reaped.
      return state === "Z" || state === "X" ? undefined : `${pid}:${fields[18]}`;
    }
    process.kill(pid, 0);
    return String(pid);
  } catch (error) {
    return codeOf(error) === "EPERM" ? String(pid) : undefined; // alive, but owned by another user
  }
}
