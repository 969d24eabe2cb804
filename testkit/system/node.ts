import { spawn, type ChildProcess, type Serializable } from "node:child_process";
import { closeSync, openSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { readIfThere } from "../../scripts/postgres-binaries";
import { NODE_FLAGS } from "../node-flags";
import { killTree } from "../process-tree";
import { eventually } from "../until";
import type { Failpoint } from "./failpoints";

interface Launch {
  /** folder of the build */
  build: string;
  logFile: string;
  /** URL of its readiness */
  readyUrl: string;
  env: Record<string, string>;
  /** flags of Node.js, in addition to those of `npm start` */
  flags?: readonly string[] | undefined;
  /** gets the messages of a preload; without it, no IPC channel is opened */
  onMessage?: ((message: unknown) => void) | undefined;
}

/** Every build that nodes run from must include this file. */
export const FAILPOINTS = "testkit/system/failpoints.ts";
const PRELOAD = "./testkit/system/failpoints.js";
/** Generous, since a start shares two cores with the load. */
const START_MS = 60_000;

/** One process of the shop, as `npm start` would start it, with the failpoints loaded. */
export class SystemNode {
  private readonly child: ChildProcess;
  private readonly failpointFile: string;
  readonly logFile: string;
  private readonly readyUrl: string;

  constructor({ build, logFile, readyUrl, env, flags = [], onMessage }: Launch) {
    this.logFile = logFile;
    this.readyUrl = readyUrl;
    this.failpointFile = `${logFile}.failpoints`;
    const log = openSync(logFile, "a");
    this.child = spawn(process.execPath, [...NODE_FLAGS, ...flags, "--require", PRELOAD, "scripts/start.js"], {
      cwd: build,
      env: { PATH: process.env["PATH"] ?? "", NODE_ENV: "test", CHAOS_FAILPOINT_FILE: this.failpointFile, ...env },
      stdio: ["ignore", log, log, ...(onMessage ? (["ipc"] as const) : [])],
      detached: true, // Ctrl-C must reach only us; we stop the process ourselves
    });
    closeSync(log);
    if (onMessage) this.child.on("message", onMessage);
  }

  /** Sends a message to its preload. */
  send(message: Serializable): void {
    this.child.send(message);
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  get isRunning(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  get exitCode(): number | null {
    return this.child.exitCode;
  }

  async isReady(): Promise<boolean> {
    return (await fetch(this.readyUrl, { signal: AbortSignal.timeout(1_000) })).ok;
  }

  async ready(): Promise<void> {
    await eventually(`${this.logFile} is ready`, () => !this.isRunning || this.isReady(), START_MS);
    if (!this.isRunning) throw new Error(`a node exited during its start, see ${this.logFile}`);
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal); // does nothing if the process has exited
  }

  exited(ms = 20_000): Promise<void> {
    return eventually(`the node of ${this.logFile} exits`, () => !this.isRunning, ms, 10);
  }

  /** Kills the node and its embedded PostgreSQL, if it has one. */
  async killTree(): Promise<void> {
    killTree(this.child);
    await this.exited();
  }

  async kill(): Promise<void> {
    this.signal("SIGKILL");
    await this.exited();
  }

  /** Replaces the armed failpoints; without arguments, disarms all. */
  async arm(...points: Failpoint[]): Promise<void> {
    const text = JSON.stringify(points);
    rmSync(`${this.failpointFile}.seen`, { force: true });
    writeFileSync(`${this.failpointFile}.new`, text);
    renameSync(`${this.failpointFile}.new`, this.failpointFile);
    await eventually(
      "the node has seen its failpoints",
      () => !this.isRunning || readIfThere(`${this.failpointFile}.seen`) === text,
      5_000,
      10,
    );
  }

  /** Resident memory, MB. */
  get memoryMb(): number {
    return Number(/VmRSS:\s+(\d+)/.exec(readIfThere(`/proc/${this.pid}/status`))?.[1] ?? 0) / 1024;
  }
}
