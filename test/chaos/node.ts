import { spawn, type ChildProcess, type Serializable } from "node:child_process";
import { closeSync, openSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { NODE_FLAGS } from "../../bench/node-flags";
import type { Failpoint } from "./failpoints";
import { readIfThere } from "../../scripts/postgres-binaries";
import { until } from "./wait";

interface Launch {
  /** the folder of the build */
  build: string;
  logFile: string;
  /** its readiness */
  readyUrl: string;
  env: Record<string, string>;
  /** of Node.js, over those of `npm start` */
  flags?: readonly string[] | undefined;
  /** gets the messages of a preload; without it there is no channel for them */
  hear?: ((message: unknown) => void) | undefined;
}

/** Starts have to share two cores with a load. */
const START_MS = 60_000;

/** One process of the shop, as `npm start` would start it, with the failpoints loaded. */
export class NodeProcess {
  private readonly child: ChildProcess;
  private readonly failpointFile: string;
  readonly logFile: string;
  private readonly readyUrl: string;

  constructor({ build, logFile, readyUrl, env, flags = [], hear }: Launch) {
    this.logFile = logFile;
    this.readyUrl = readyUrl;
    this.failpointFile = `${logFile}.failpoints`;
    const log = openSync(logFile, "a");
    this.child = spawn(process.execPath, [...NODE_FLAGS, ...flags, "--require", "./test/chaos/failpoints.js", "scripts/start.js"], {
      cwd: build,
      env: { PATH: process.env["PATH"] ?? "", NODE_ENV: "test", CHAOS_FAILPOINT_FILE: this.failpointFile, ...env },
      stdio: ["ignore", log, log, ...(hear ? (["ipc"] as const) : [])],
      detached: true, // Ctrl-C is for us: we end it
    });
    closeSync(log);
    if (hear) this.child.on("message", hear);
  }

  /** To its preload. */
  send(message: Serializable): void {
    this.child.send(message);
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  get running(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  get exitCode(): number | null {
    return this.child.exitCode;
  }

  async isReady(): Promise<boolean> {
    return (await fetch(this.readyUrl, { signal: AbortSignal.timeout(1_000) })).ok;
  }

  async ready(): Promise<void> {
    await until(`${this.logFile} is ready`, () => !this.running || this.isReady(), START_MS);
    if (!this.running) throw new Error(`a node has ended while it started, see ${this.logFile}`);
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal); // nothing where it has ended
  }

  ended(ms = 20_000): Promise<void> {
    return until(`${this.logFile} ends`, () => !this.running, ms, 10);
  }

  /** With its embedded PostgreSQL, where it has one. */
  async killTree(): Promise<void> {
    killTree(this.child);
    await this.ended();
  }

  async kill(): Promise<void> {
    this.signal("SIGKILL");
    await this.ended();
  }

  /** Replaces what is armed; none disarms. */
  async arm(...points: Failpoint[]): Promise<void> {
    const text = JSON.stringify(points);
    rmSync(`${this.failpointFile}.seen`, { force: true });
    writeFileSync(`${this.failpointFile}.new`, text);
    renameSync(`${this.failpointFile}.new`, this.failpointFile);
    await until("the node has seen its failpoints", () => !this.running || readIfThere(`${this.failpointFile}.seen`) === text, 5_000, 10);
  }

  /** Resident memory, MB. */
  get memory(): number {
    return Number(/VmRSS:\s+(\d+)/.exec(readIfThere(`/proc/${this.pid}/status`))?.[1] ?? 0) / 1024;
  }
}

/**
 * SIGKILL to a child of ours and all below it. Never by a pid from a file: a file that is gone reads as pid 0, and
 * below 0 is the whole machine.
 */
export function killTree(child: ChildProcess): void {
  const { pid } = child;
  if (pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  signalTree(pid, "SIGKILL");
}

/** @param root a process that is surely ours */
export function signalTree(root: number, signal: NodeJS.Signals): void {
  for (const one of processTree(root)) {
    try {
      process.kill(one, signal);
    } catch {
      // it has ended with its parent
    }
  }
}

function processTree(root: number): number[] {
  if (!Number.isInteger(root) || root <= 1 || root === process.pid) throw new Error(`${root} is no child of ours`);
  const parents = readdirSync("/proc").flatMap((name): [number, number][] => {
    if (!/^\d+$/.test(name)) return [];
    try {
      const fields = readFileSync(`/proc/${name}/stat`, "utf8").split(") ").at(-1)?.split(" ") ?? [];
      return [[Number(name), Number(fields[1])]];
    } catch {
      return []; // it has just ended
    }
  });
  const tree = [root];
  for (const pid of tree) tree.push(...parents.filter(([, parent]) => parent === pid).map(([child]) => child));
  return tree;
}
