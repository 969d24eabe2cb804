import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import type { ServiceName } from "../config";
import { freePorts } from "./free-ports";
import { ROOT } from "./repository";
import { until } from "./until";

const SOURCE = [process.execPath, "--import", "tsx", "scripts/start.ts"];
const START_MS = 60_000;
const STOP_MS = 20_000;

/** A node of the shop in its own process. */
export interface NodeProcess {
  readonly pid: number;
  readonly nodeId: string;
  /** The base URL of /live and /ready. */
  readonly ops: string;
  /** The gateway's base URL, if the node hosts it. */
  readonly url: string | undefined;
  /** Its output so far, of stdout and stderr. */
  output(): string;
  /** @returns its exit code; null if the signal killed it. If it doesn't exit in time, kills it and rejects. */
  stop(signal?: NodeJS.Signals): Promise<number | null>;
  /** Sends SIGKILL, like a crash or a power cut. Resolves when the process has exited. */
  kill(): Promise<void>;
}

export interface ProcessOptions {
  /** All by default. */
  services?: readonly ServiceName[];
  /** Overrides the settings made here. The process inherits only PATH, HOME and the like. */
  env?: Readonly<Record<string, string>>;
  /** The command to start; by default, the source. */
  command?: readonly string[];
  cwd?: string;
}

const running = new Set<NodeProcess>();

/** For afterAll: kills the processes that a failed test left running. */
export async function killProcesses(): Promise<void> {
  await Promise.all([...running].map((node) => node.kill()));
}

/**
 * Starts a node, and waits until it is ready.
 * @throws with its output, if it exits or doesn't become ready
 */
export async function startProcess(options: ProcessOptions = {}, tries = 3): Promise<NodeProcess> {
  const node = await launch(options);
  const ended = (): boolean => !running.has(node);
  try {
    await until(`${node.nodeId} is ready`, async () => ended() || (await isReady(node.ops)), START_MS);
  } catch (cause) {
    await node.kill();
    throw new Error(`its output:\n${node.output()}`, { cause });
  }
  if (!ended()) return node;
  // Another process has taken the port since we found it free.
  if (tries > 1 && node.output().includes("EADDRINUSE")) return startProcess(options, tries - 1);
  throw new Error(`${node.nodeId} exited instead of becoming ready:\n${node.output()}`);
}

async function launch({ services, env = {}, command = SOURCE, cwd = ROOT }: ProcessOptions): Promise<NodeProcess> {
  const { PATH, HOME, TMPDIR } = process.env;
  const [port = 0, opsPort = 0] = await freePorts(2);
  const settings = {
    HOST: "127.0.0.1",
    PORT: String(port),
    OPS_PORT: String(opsPort),
    NODE_ID: `${services?.join("+") ?? "shop"}-${randomBytes(4).toString("hex")}`,
    BCRYPT_COST: "4",
    ...(services && { SERVICES: services.join(",") }),
    ...env,
  };
  const nodeId = settings.NODE_ID;
  const [program = "", ...args] = command;
  const child = spawn(program, args, {
    cwd,
    env: { PATH, HOME, TMPDIR, ...settings },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const closed = once(child, "close"); // not "exit", which may come before all output has been read
  await once(child, "spawn");

  const node: NodeProcess = {
    pid: child.pid ?? 0,
    nodeId,
    ops: `http://127.0.0.1:${settings.OPS_PORT}`,
    url: !services || services.includes("api") ? `http://127.0.0.1:${settings.PORT}` : undefined,
    output: () => output,
    async stop(signal = "SIGTERM") {
      child.kill(signal);
      try {
        await until(`${nodeId} exits after ${signal}`, () => !running.has(node), STOP_MS);
      } catch (cause) {
        await node.kill();
        throw new Error(`its output:\n${output}`, { cause });
      }
      return child.exitCode;
    },
    async kill() {
      child.kill("SIGKILL");
      await closed;
    },
  };
  running.add(node);
  void closed.then(() => running.delete(node));
  return node;
}

async function isReady(ops: string): Promise<boolean> {
  try {
    return (await fetch(`${ops}/ready`, { signal: AbortSignal.timeout(2_000) })).ok;
  } catch {
    return false; // it isn't listening yet, or has exited
  }
}
