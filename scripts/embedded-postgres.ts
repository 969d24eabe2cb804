import { randomBytes, randomUUID } from "node:crypto";
import { existsSync, readFileSync, readlinkSync, realpathSync } from "node:fs";
import { link, mkdir, mkdtemp, readdir, readFile, rename, rm, truncate, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "pg";
import { codeOf, findPrograms, initialise, launch, type Programs, readIfThere, readPidFile, sendSignal } from "./postgres-binaries";

export interface EmbeddedPostgres {
  readonly url: (database: string) => string;
  /** true if the server was running already, started by a process that still lives or that was killed */
  readonly adopted: boolean;
  /** Stops the server, unless it belongs to another living process. May be called more than once. */
  stop(): Promise<void>;
}

interface Options {
  readonly dataDir: string;
  readonly databases: readonly string[];
  /** parameters of a server that this call starts (an adopted one keeps its own), e.g. `{ fsync: "off" }` */
  readonly settings?: Readonly<Record<string, string>>;
  readonly log?: (line: string) => void;
}

type Home = ReturnType<typeof homeIn>;

/** A running server; `process` is what `identify` says of its postmaster. */
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
  [/EACCES|Permission denied/, "The files belong to another user (made by root?): start as that user, or chown them."],
  [/root may not/, "This root lacks the right to change users: start as a normal user."],
  [/ENOENT.*postgres\.password/, "The cluster is closed without its password: restore that file or remove all."],
  [/could not look up effective user ID/, "Start as a user that has a line in /etc/passwd."],
  [/spawn .* ENOENT|GLIBC/, "The programs need glibc: take a Debian-based image, not Alpine."],
  [/incompatible with server/, "Another version of PostgreSQL made the data: remove the directory to begin anew."],
];

/**
 * Starts PostgreSQL in `<dataDir>/postgres`, making the cluster and the missing databases, or adopts the server that
 * runs there already. Processes that start at the same time share one server; the first of them owns it.
 * @throws an error that names the cause and the remedy
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
  // Written before the launch: killed in between, we leave a dead owner to be succeeded, not a server without one.
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

/** Made beside its place and then renamed: a cluster in its place is whole, whenever we may have been killed. */
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

/** Waits for a server that is starting, recovering or ending; undefined if none runs on the cluster. */
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
        const remedy = `end it or, if it is not PostgreSQL, remove ${join(home.cluster, "postmaster.pid")}`;
        throw new Error(`process ${pid} is not the expected server (${String(cause)}): ${remedy}`, { cause });
      }
      await sleep(50);
    }
  }
}

async function expectCluster(url: string, cluster: string): Promise<void> {
  const { rowCount } = await connected(url, (client) =>
    // the second as Windows writes it, the third is relative to the process: worksIn has seen where that is
    client.query("select 1 where current_setting('data_directory') = any($1)", [
      [cluster, cluster.replaceAll("\\", "/"), "/proc/self/cwd"],
    ]),
  );
  if (rowCount !== 1) throw new Error("it has another data directory");
}

// The postmaster works in its data directory: on Linux that tells it from a process that got its pid after a reboot.
function worksIn(pid: number, directory: string): boolean {
  if (process.platform !== "linux") return true;
  try {
    return readlinkSync(`/proc/${pid}/cwd`) === realpathSync(directory);
  } catch {
    return false; // it has just ended, or is another user's and therefore not ours
  }
}

async function launchPatiently(home: Home, programs: Programs, settings: Options["settings"]): Promise<Server> {
  for (let pause = 50; ; pause *= 2) {
    try {
      const { pid, port } = await launch(programs, home.cluster, home.logFile, settings);
      return { pid, port, process: identify(pid) ?? "" };
    } catch (error) {
      // The children of a killed postmaster hold its memory for a moment, or for their query; a free port may be taken.
      if (pause > 4000 || !TRANSIENT.test(String(error))) throw error;
      await sleep(pause);
    }
  }
}

/** Fast shutdown: ends the sessions, writes a checkpoint. An immediate one, which needs recovery, if that takes too long. */
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
  throw new Error(`PostgreSQL, process ${server.pid}, ends neither by SIGINT nor by SIGQUIT`);
}

function urlOf(port: number, password: string, database: string): string {
  return `postgres://postgres:${password}@127.0.0.1:${port}/${encodeURIComponent(database)}`;
}

async function connected<T>(url: string, work: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 10_000 });
  client.on("error", () => undefined); // a lost connection also fails the query, and there it is heard
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
 * Runs `work` while no other start or stop works on the same directory. The lock is the file with the highest number,
 * free if it is empty or its writer has ended. It is never removed and never overwritten by another, only followed by
 * the next number: so two that find the same dead holder cannot both succeed it.
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
      await link(draft, lock); // unlike writing it in place, this never shows the others an empty, hence free lock
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
    await rm(lock, { force: true }); // others have taken, freed and cleared away this number since we looked
  }
}

/** A text that is this process's and no other's, even after its pid has been given to another one. */
function newMark(): string {
  return `${identify(process.pid) ?? process.pid} ${randomUUID()}`;
}

function isAlive(mark: string): boolean {
  return mark.split(" ")[0] === identify(Number.parseInt(mark));
}

/** The pid, with the start time where that is cheap to have: pids are used again. Undefined if the process has ended. */
function identify(pid: number): string | undefined {
  if (!(pid > 0)) return undefined;
  try {
    if (process.platform === "linux") {
      const [state, ...fields] = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.split(" ") ?? [];
      // A zombie has ended; in a container nobody may ever reap it.
      return state === "Z" || state === "X" ? undefined : `${pid}:${fields[18]}`;
    }
    process.kill(pid, 0);
    return String(pid);
  } catch (error) {
    return codeOf(error) === "EPERM" ? String(pid) : undefined; // alive, but another user's
  }
}
