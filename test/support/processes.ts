import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
import path from "node:path";
import type { ServiceName } from "../../config";
import { until } from "./amqp";

export const ROOT = path.resolve(__dirname, "../..");
const SOURCE = [process.execPath, "--import", "tsx", "scripts/start.ts"];
const START_MS = 60_000;
const STOP_MS = 20_000;

/** A node of the shop as a process of its own. */
export interface NodeProcess {
  readonly pid: number;
  readonly nodeId: string;
  /** The base URL of /live and /ready. */
  readonly ops: string;
  /** The gateway's, where it is hosted. */
  readonly url: string | undefined;
  /** All that it has written so far, to stdout and stderr. */
  output(): string;
  /** @returns its exit code; null if the signal ended it. Rejects, and kills it, if it does not end. */
  stop(signal?: NodeJS.Signals): Promise<number | null>;
  /** As a crash or a power cut: SIGKILL. Resolves when it has ended. */
  kill(): Promise<void>;
}

export interface ProcessOptions {
  /** All where not said. */
  services?: readonly ServiceName[];
  /** Over what is set here; of our own environment it gets PATH and the like alone. */
  env?: Readonly<Record<string, string>>;
  /** What to start; the source where not said. */
  command?: readonly string[];
  cwd?: string;
}

const running = new Set<NodeProcess>();

/** For afterAll: ends whatever a failed test has left. */
export async function killProcesses(): Promise<void> {
  await Promise.all([...running].map((node) => node.kill()));
}

/**
 * Starts a node, and waits until it is ready.
 * @throws with its output, if it ends or does not get ready
 */
export async function startProcess(options: ProcessOptions = {}, tries = 3): Promise<NodeProcess> {
  const node = await launch(options);
  const ended = (): boolean => !running.has(node);
  try {
    await until(`${node.nodeId} is ready`, async () => ended() || (await isReady(node.ops)), START_MS);
  } catch (cause) {
    await node.kill();
    throw new Error(`it wrote:\n${node.output()}`, { cause });
  }
  if (!ended()) return node;
  // A port that was free when we looked has been taken since.
  if (tries > 1 && node.output().includes("EADDRINUSE")) return startProcess(options, tries - 1);
  throw new Error(`${node.nodeId} ended instead of getting ready:\n${node.output()}`);
}

async function launch({ services, env = {}, command = SOURCE, cwd = ROOT }: ProcessOptions): Promise<NodeProcess> {
  const { PATH, HOME, SystemRoot, TEMP, TMPDIR } = process.env;
  const [port, opsPort] = await freePorts();
  const settings = {
    HOST: "127.0.0.1",
    PORT: port,
    OPS_PORT: opsPort,
    NODE_ID: `${services?.join("+") ?? "shop"}-${randomBytes(4).toString("hex")}`,
    BCRYPT_COST: "4",
    ...(services && { SERVICES: services.join(",") }),
    ...env,
  };
  const nodeId = settings.NODE_ID;
  const [program = "", ...args] = command;
  const child = spawn(program, args, {
    cwd,
    env: { PATH, HOME, SystemRoot, TEMP, TMPDIR, ...settings },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const closed = once(child, "close"); // not "exit": by now all that it wrote has been read
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
        await until(`${nodeId} ends by ${signal}`, () => !running.has(node), STOP_MS);
      } catch (cause) {
        await node.kill();
        throw new Error(`it wrote:\n${output}`, { cause });
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
    return false; // it does not listen yet, or has ended
  }
}

/** Two at a time, so that they differ. */
async function freePorts(): Promise<[string, string]> {
  const probes = [createServer(), createServer()];
  await Promise.all(probes.map((probe) => once(probe.listen(0, "127.0.0.1"), "listening")));
  const [first, second] = probes.map((probe) => String((probe.address() as AddressInfo).port));
  await Promise.all(probes.map((probe) => once(probe.close(), "close")));
  return [first ?? "", second ?? ""];
}
