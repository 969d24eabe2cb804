import { chmodSync, existsSync, mkdirSync, mkdtempSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { connect } from "amqplib";
import { startEmbeddedPostgres, type EmbeddedPostgres } from "../scripts/embedded-postgres";
import { readPidFile } from "../scripts/postgres-binaries";
import { build } from "../testkit/build";
import { runCleanups } from "../testkit/cleanups";
import { ROOT } from "../testkit/repository";
import { listenerOf } from "./idle";

/** The environment that all targets share. */
export interface Setup {
  readonly folder: string;
  readonly build: string;
  readonly logs: string;
  readonly postgres: EmbeddedPostgres;
  readonly postmaster: number;
  readonly amqp: string;
  /** RabbitMQ's process, if it runs on this machine. */
  readonly rabbit: number | undefined;
  /** Whether the tree has mixins/batching.ts, which the comparison without batching replaces. */
  readonly batches: boolean;
  /** Registers a function to be called by `stop`, in reverse order. */
  onStop(stop: () => Promise<unknown>): void;
  stop(): Promise<void>;
}

export function progress(line: string): void {
  process.stderr.write(`${new Date().toISOString().slice(11, 19)}  ${line}\n`);
}

/** Programs of the benchmark that run as separate processes, and modules preloaded into a node. */
const PROGRAMS = ["empty.ts", "raw.ts", "stock.ts", "load.worker.ts", "unbatched.ts", "loop-delay.ts", "sampler.ts"].map(
  (name) => `bench/${name}`,
);

/** PostgreSQL's default durability, with enough connections for all targets and a usual amount of memory. */
const SETTINGS = { max_connections: "300", shared_buffers: "256MB" };

export async function prepareSetup(): Promise<Setup> {
  const stops: (() => Promise<unknown>)[] = [];
  let stopping: Promise<void> | undefined;
  const stop = (): Promise<void> => (stopping ??= runCleanups(stops));
  const leave = (why: string, code: number): void => {
    progress(`${why}: stopping everything`);
    void stop().finally(() => process.exit(code));
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => leave(signal, 130));
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined); // e.g. `| head` has closed the pipe
  process.on("uncaughtException", (error) => leave(error.stack ?? error.message, 1));
  try {
    const folder = mkdtempSync(path.join(tmpdir(), "shop-bench-"));
    stops.push(() => rm(folder, { recursive: true, force: true, maxRetries: 3 }));
    chmodSync(folder, 0o755); // PostgreSQL runs as another user if this process runs as root
    const logs = path.join(folder, "logs");
    mkdirSync(logs);
    progress(`building into ${folder}`);
    const built = await build(folder, PROGRAMS);
    const amqp = process.env.BENCH_AMQP_URL ?? "amqp://guest:guest@127.0.0.1:5672";
    await expectRabbit(amqp);
    const { hostname, port } = new URL(amqp);
    const dataDir = path.join(folder, "postgres");
    const postgres = await startEmbeddedPostgres({ dataDir, databases: [], settings: SETTINGS });
    stops.push(() => postgres.stop());
    return {
      folder,
      build: built,
      logs,
      postgres,
      postmaster: readPidFile(path.join(dataDir, "postgres")).pid,
      amqp,
      rabbit: ["127.0.0.1", "localhost"].includes(hostname) ? listenerOf(Number(port || 5672)) : undefined,
      batches: existsSync(path.join(ROOT, "mixins/batching.ts")),
      onStop: (one) => void stops.push(one),
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function expectRabbit(url: string): Promise<void> {
  try {
    await (await connect(url, { timeout: 5_000 })).close();
  } catch (cause) {
    throw new Error(`no RabbitMQ at ${new URL(url).host}: start one, or set BENCH_AMQP_URL`, { cause });
  }
}
