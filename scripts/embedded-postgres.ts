import { randomBytes } from "node:crypto";
import { existsSync, readlinkSync, realpathSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { exclusively } from "./directory-lock";
import { findPrograms, freePort, initialise, lastLines, launch, readIfThere, readPidFile } from "./postgres-binaries";
import type { Programs } from "./postgres-binaries";
import { connected, Use } from "./postgres-sessions";
import { identify } from "./process-identity";

export interface EmbeddedPostgres {
  readonly url: (database: string) => string;
  /** true if the server was running already, started by a process that is still alive or was killed */
  readonly adopted: boolean;
  /** Ends this use of the server, and stops it unless another living process uses it. May be called more than once. */
  stop(): Promise<void>;
}

interface Options {
  readonly dataDir: string;
  readonly databases: readonly string[];
  /** parameters for a server started by this call (an adopted one keeps its own), e.g. `{ fsync: "off" }` */
  readonly settings?: Readonly<Record<string, string>>;
  readonly log?: (line: string) => void;
  /** If given, a server that dies is restarted on the same port. Called with its death, each failed restart, and its return. */
  readonly onDeath?: (report: string) => void;
}

type Home = ReturnType<typeof homeIn>;

/** A running server; `process` is the result of `identify` for its postmaster. */
interface Server {
  readonly pid: number;
  readonly port: number;
  readonly process: string;
}

const RECOVERY_MS = 60_000; // a server in crash recovery refuses connections for a while
const STOP_MS = 10_000;
const RESTART_PAUSE_MS = 250;
const LONGEST_RESTART_PAUSE_MS = 10_000;
const TRANSIENT = /shared memory block .* still in use|postmaster\.pid" already exists|could not create any TCP\/IP/;
const REMEDIES: readonly (readonly [RegExp, string])[] = [
  [/No space left|ENOSPC|quota/i, "The disk is full: make room."],
  [/EACCES|Permission denied/, "The files belong to another user (created by root?): start as that user, or chown them."],
  [/root may not/, "This root user may not change users: start as a normal user."],
  [/ENOENT.*postgres\.password/, "The cluster can't be used without its password: restore that file, or remove the whole directory."],
  [/could not look up effective user ID/, "Start as a user that has an entry in /etc/passwd."],
  [/spawn .* ENOENT|GLIBC/, "The programs need glibc: use a Debian-based image, not Alpine."],
  [/incompatible with server/, "Another version of PostgreSQL created the data: remove the directory to start afresh."],
];

/**
 * Starts PostgreSQL in `<dataDir>/postgres`, creating the cluster and missing databases, or adopts the server that is
 * already running there. Processes share one server, whichever started it, and the last of them stops it.
 * @throws an error with the cause and the remedy
 */
export async function startEmbeddedPostgres(options: Options): Promise<EmbeddedPostgres> {
  const directory = resolve(options.dataDir);
  try {
    await mkdir(directory, { recursive: true });
    const home = homeIn(realpathSync(directory));
    return await exclusively(home.directory, () => start(home, options));
  } catch (cause) {
    const others = "To use a PostgreSQL server of your own, set the three *_DATABASE_URL variables.";
    throw new Error(`no embedded PostgreSQL in ${directory}: ${[explain(cause), others].join("\n")}`, { cause });
  }
}

/** The reason of a failure, and what helps. */
function explain(cause: unknown): string {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return [reason, ...REMEDIES.filter(([pattern]) => pattern.test(reason)).map(([, remedy]) => remedy)].join("\n");
}

function homeIn(directory: string) {
  const at = (name: string): string => join(directory, name);
  const files = { passwordFile: at("postgres.password"), portFile: at("postgres.port"), logFile: at("postgres.log") };
  return { directory, cluster: at("postgres"), ...files };
}

async function start(home: Home, options: Options): Promise<EmbeddedPostgres> {
  const { databases, settings, log = () => undefined, onDeath } = options;
  const programs = await findPrograms(home.cluster);
  if (!existsSync(home.cluster) || (await readdir(home.cluster)).length === 0) {
    log(`creating a PostgreSQL cluster in ${home.cluster}`);
    await createCluster(home, programs, settings?.fsync !== "off");
  }
  const password = await readFile(home.passwordFile, "utf8");
  const running = await findRunning(home, password);
  let server = running ?? (await launchPatiently(home, programs, settings, () => usualPort(home)));
  const { port } = server;
  const url = (database: string): string => urlOf(port, password, database);

  let use: Use | undefined;
  let ended: Promise<void> | undefined;
  const isStopped = (): boolean => ended !== undefined;
  const begin = async (): Promise<void> => {
    use = await Use.begin(url("postgres"), () => {
      if (onDeath !== undefined && !isStopped()) void keepTrying(restart, home, isStopped, onDeath);
    });
  };
  /** Other processes that use the server may be faster. */
  const restart = (): Promise<void> =>
    exclusively(home.directory, async () => {
      if (isStopped()) return;
      server = (await findRunning(home, password)) ?? (await launchPatiently(home, programs, settings, () => Promise.resolve(port)));
      if (server.port !== port) throw new Error(`it runs on port ${server.port} now instead of ${port}: restart this process`);
      await begin();
    });
  const end = async (): Promise<void> => {
    let isLast = await use?.end();
    if (isLast === undefined) {
      const found = await findRunning(home, password); // restarted since the session was lost
      if (found === undefined) return;
      server = found;
      isLast = await (await Use.begin(urlOf(found.port, password, "postgres"))).end();
    }
    if (isLast === true) await terminate(server);
  };
  const stop = (): Promise<void> => (ended ??= existsSync(home.directory) ? exclusively(home.directory, end) : end());

  try {
    await begin();
    await createDatabases(url("postgres"), databases);
  } catch (error) {
    ended = end(); // the lock is held already
    await ended.catch(() => undefined);
    throw error;
  }
  log(`PostgreSQL ${running ? "was running" : "runs"} on 127.0.0.1:${port} and logs to ${home.logFile}`);
  return { url, adopted: running !== undefined, stop };
}

/** Restarts a server that has died, until it runs or this process stops. A full disk, for example, may have room again later. */
async function keepTrying(
  restart: () => Promise<void>,
  { logFile }: Home,
  isStopped: () => boolean,
  report: (text: string) => void,
): Promise<void> {
  report(`the embedded PostgreSQL has terminated and is restarted. The end of ${logFile}:\n${lastLines(readIfThere(logFile))}`);
  for (let pauseMs = RESTART_PAUSE_MS; !isStopped(); pauseMs = Math.min(2 * pauseMs, LONGEST_RESTART_PAUSE_MS)) {
    try {
      await restart();
      if (!isStopped()) report("the embedded PostgreSQL runs again");
      return;
    } catch (error) {
      report(`the embedded PostgreSQL can't be restarted, next try in ${pauseMs / 1_000} s: ${explain(error)}`);
      await sleep(pauseMs, undefined, { ref: false });
    }
  }
}

/** The port of the previous start, so that the URLs in other processes stay valid; another one if it is taken. */
async function usualPort({ portFile }: Home): Promise<number> {
  const port = await freePort(Number.parseInt(readIfThere(portFile)) || 0);
  await writeFile(portFile, String(port));
  return port;
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
  const deadline = Date.now() + RECOVERY_MS;
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
    // the second is relative to the process, whose directory worksIn has checked
    client.query("select 1 where current_setting('data_directory') in ($1, '/proc/self/cwd')", [cluster]),
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

async function launchPatiently(
  home: Home,
  programs: Programs,
  settings: Options["settings"],
  choosePort: () => Promise<number>,
): Promise<Server> {
  for (let pause = 50; ; pause *= 2) {
    try {
      const port = await choosePort();
      const pid = await launch(programs, home.cluster, home.logFile, port, settings);
      return { pid, port, process: identify(pid) ?? "" };
    } catch (error) {
      // A killed postmaster's children hold its memory briefly, or until their query ends; a free port may be taken meanwhile.
      if (pause > 4000 || !TRANSIENT.test(String(error))) throw error;
      await sleep(pause);
    }
  }
}

/** Fast shutdown, which ends the sessions and writes a checkpoint; if it takes too long, immediate shutdown, which requires recovery. */
async function terminate(server: Server): Promise<void> {
  const running = (): boolean => identify(server.pid) === server.process;
  for (const signal of ["SIGINT", "SIGQUIT"]) {
    try {
      if (running()) process.kill(server.pid, signal);
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

async function createDatabases(url: string, names: readonly string[]): Promise<void> {
  if (names.length === 0) return;
  await connected(url, async (client) => {
    for (const name of names) {
      const { rowCount } = await client.query("select 1 from pg_database where datname = $1", [name]);
      if (rowCount === 0) await client.query(`create database ${client.escapeIdentifier(name)}`);
    }
  });
}
