import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import path from "node:path";
import { readIfThere } from "../scripts/postgres-binaries";
import { eventually } from "./until";

interface ProgramOptions {
  name: string;
  /** Working directory, and the folder of its log. */
  cwd: string;
  logs: string;
  /** Node's arguments: flags, the file, its arguments. */
  args: readonly string[];
  env: Readonly<Record<string, string>>;
  /** Whether the process can be used; an error means "not yet". */
  ready: () => Promise<boolean>;
}

const START_MS = 60_000;
const STOP_MS = 15_000;

/** A process that was started for the measurement. It inherits only PATH. */
export interface RunningProgram {
  readonly name: string;
  readonly pid: number;
  readonly logFile: string;
  /** SIGTERM, and SIGKILL if the process does not exit. */
  stop(): Promise<void>;
}

/** Starts a process and waits until it is ready. @throws with the end of its log, if it exits or does not become ready */
export async function startProgram({ name, cwd, logs, args, env, ready }: ProgramOptions): Promise<RunningProgram> {
  const logFile = path.join(logs, `${name}.log`);
  const log = openSync(logFile, "a");
  const { PATH = "" } = process.env;
  // detached: Ctrl-C must reach only the benchmark, which then stops it
  const child = spawn(process.execPath, args, { cwd, env: { PATH, ...env }, stdio: ["ignore", log, log], detached: true });
  closeSync(log);
  const hasExited = (): boolean => child.exitCode !== null || child.signalCode !== null;
  const stop = async (): Promise<void> => {
    child.kill("SIGTERM");
    try {
      await eventually(`${name} ends`, hasExited, STOP_MS);
    } catch {
      child.kill("SIGKILL");
      await eventually(`${name} ends`, hasExited, STOP_MS);
    }
  };
  try {
    await eventually(`${name} is ready`, () => hasExited() || ready(), START_MS);
    if (hasExited()) throw new Error(`${name} exited before it was ready`);
  } catch (cause) {
    await stop();
    throw new Error(`${name} could not be started; it wrote:\n${readIfThere(logFile).slice(-3_000)}`, { cause });
  }
  return { name, pid: child.pid ?? 0, logFile, stop };
}

export async function isOk(url: string): Promise<boolean> {
  return (await fetch(url, { signal: AbortSignal.timeout(2_000) })).ok;
}
