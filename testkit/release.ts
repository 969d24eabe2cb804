import { execFile } from "node:child_process";
import { mkdirSync, readFileSync, symlinkSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { ROOT } from "./repository";

const run = promisify(execFile);
const git = async (root: string, ...args: string[]): Promise<string> =>
  (await run("git", args, { cwd: root, maxBuffer: 256 * 1024 * 1024, timeout: 60_000 })).stdout.trim();

/** A commit whose tree can run beside this one. */
export interface Release {
  readonly revision: string;
  /** version in its package.json */
  readonly version: string;
}

const SUBJECT = /^Release (\d+\.\d+\.\d+)$/;
const INSTALL_MS = 300_000;

/**
 * The newest release before HEAD: a commit with the subject `Release x.y.z`.
 * @returns undefined if there is no earlier release
 * @throws in a shallow clone, or if that commit's package.json has another version
 */
export async function newestRelease(root = ROOT): Promise<Release | undefined> {
  if ((await git(root, "rev-parse", "--is-shallow-repository")) === "true")
    throw new Error("this is a shallow clone, so the newest release is unknown: run git fetch --unshallow");
  const [, ...before] = (await git(root, "log", "--format=%H %s", "HEAD")).split("\n");
  for (const line of before) {
    const end = line.indexOf(" ");
    const [revision, subject] = [line.slice(0, end), line.slice(end + 1)];
    const version = SUBJECT.exec(subject)?.[1];
    if (version === undefined) continue;
    const release = await releaseAt(revision, root);
    if (release.version !== version)
      throw new Error(`${revision} has the subject "${subject}", but its package.json has version ${release.version}`);
    return release;
  }
  return undefined;
}

/** Any commit, by a revision that git understands. @throws if there is none */
export async function releaseAt(name: string, root = ROOT): Promise<Release> {
  const revision = await git(root, "rev-parse", "--verify", "--end-of-options", `${name}^{commit}`);
  const { version } = JSON.parse(await git(root, "show", `${revision}:package.json`)) as { version: string };
  return { revision, version };
}

/** Checks a commit out into a folder, with its dependencies; uses this tree's if they are the same. @returns its root */
export async function checkOut({ revision }: Release, folder: string): Promise<string> {
  const root = path.join(folder, "source");
  mkdirSync(root, { recursive: true });
  const archive = path.join(folder, "source.tar");
  await git(ROOT, "archive", "--output", archive, revision);
  await run("tar", ["-xf", archive, "-C", root]);
  if (lockOf(root) === lockOf(ROOT)) symlinkSync(path.join(ROOT, "node_modules"), path.join(root, "node_modules"));
  else await install(root);
  return root;
}

/** The lock file without the version, which differs between a release and the commit before it. */
function lockOf(root: string): string {
  const lock = JSON.parse(readFileSync(path.join(root, "package-lock.json"), "utf8")) as {
    version?: string;
    packages: Record<string, { version?: string }>;
  };
  delete lock.version;
  delete lock.packages[""]?.version;
  return JSON.stringify(lock);
}

/** Removes npm's environment variables, since `npm run` sets them to this tree, where a nested npm would install. */
async function install(root: string): Promise<void> {
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(npm_(config_local_prefix|package_)|INIT_CWD)/.test(name)),
  );
  await run("npm", ["ci", "--prefix", root, "--no-audit", "--no-fund", "--loglevel=error"], { cwd: root, env, timeout: INSTALL_MS });
}
