import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { cpuOf, difference, memoryOf, type Roles } from "../testkit/process-stats";
import type { Setup } from "./setup";

export interface Request {
  method: "GET" | "POST";
  path: string;
  headers?: Record<string, string>;
  body?: string;
}

interface Common {
  url: string;
  connections: number;
  /** Each request is chosen from these at random. */
  requests: Request[];
}

/** Closed loop: each connection sends its next request after it has received a response. */
export interface ClosedJob extends Common {
  kind: "closed";
  /** Seconds. */
  seconds: number;
  /** Seconds before the measurement. */
  warmUp: number;
  /** Logins that are kept in flight meanwhile. */
  logins?: { concurrency: number; body: string };
}

/** Open loop: requests are sent when they are due, whether earlier ones have responses or not. If no connection is free, one is not sent. */
export interface OpenJob extends Common {
  kind: "open";
  /** In sequence: `rate` requests per second for `seconds`. */
  phases: { rate: number; seconds: number }[];
}

export type Job = ClosedJob | OpenJob;

export interface ClosedResult {
  /** 2xx responses per second. */
  rate: number;
  /** ms */
  p50: number;
  p99: number;
  /** 2xx responses during the measurement. */
  requests: number;
  /** By status or error, over the whole run. */
  failures: Record<string, number>;
  /** Successful logins, of `ClosedJob.logins`. */
  logins: number;
  refusedLogins: number;
}

/** One second of an open loop; responses count in the second in which they arrive. */
export interface Second {
  due: number;
  /** no connection was free */
  unsent: number;
  /** responses with 2xx, with 503 or 429, with any other status, and missing responses */
  ok: number;
  refused: number;
  other: number;
  broken: number;
  /** ms since the request was due */
  okP50: number;
  okP99: number;
  /** ms since the request was sent: how long the shop took to refuse it */
  refusedP99: number;
}

export interface OpenResult {
  seconds: Second[];
  /** The id of each accepted order, and when its request was due, in ms since 1970. */
  orders: [string, number][];
  failures: Record<string, number>;
}

export type ToParent = { edge: "begin" | "end" } | { result: ClosedResult | OpenResult } | { error: string };

export interface Measured extends ClosedResult {
  /** CPU ms per request, by role. */
  cpu: Record<string, number>;
  /** MB, by role. */
  rss: Record<string, number>;
}

/** The load generator of all targets, in a separate process. */
export class Generator {
  private constructor(
    private readonly child: ChildProcess,
    private readonly setup: Setup,
  ) {}

  static async start(setup: Setup): Promise<Generator> {
    const child = fork(path.join(setup.build, "bench/load.worker.js"), { stdio: ["ignore", "inherit", "inherit", "ipc"], detached: true });
    setup.onStop(() => Promise.resolve(child.kill("SIGKILL")));
    await once(child, "spawn");
    return new Generator(child, setup);
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  /** Runs a closed loop and measures the cost of each process. */
  async closed(job: Omit<ClosedJob, "kind">, roles: Roles): Promise<Measured> {
    const { postmaster, rabbit } = this.setup;
    const all: Roles = { ...roles, generator: [this.pid], ...(rabbit !== undefined && { rabbitmq: [rabbit] }) };
    let before = {};
    let after = {};
    const result = await this.run({ ...job, kind: "closed" }, (edge) => {
      if (edge === "begin") before = cpuOf(all, postmaster);
      else after = cpuOf(all, postmaster);
    });
    if (!("rate" in result)) throw new Error("the generator returned another job's result");
    const cpu = Object.entries(difference(before, after)).map(([role, s]): [string, number] => [role, (1_000 * s) / result.requests]);
    return { ...result, cpu: Object.fromEntries(cpu), rss: memoryOf(all) };
  }

  async open(job: Omit<OpenJob, "kind">): Promise<OpenResult> {
    const result = await this.run({ ...job, kind: "open" }, () => undefined);
    if (!("orders" in result)) throw new Error("the generator returned another job's result");
    return result;
  }

  private run(job: Job, onEdge: (edge: "begin" | "end") => void): Promise<ClosedResult | OpenResult> {
    return new Promise((resolve, reject) => {
      const onExit = (): void => {
        reject(new Error("the load generator has exited"));
      };
      const onMessage = (message: ToParent): void => {
        if ("edge" in message) {
          onEdge(message.edge);
          return;
        }
        this.child.off("message", onMessage).off("exit", onExit);
        if ("result" in message) resolve(message.result);
        else reject(new Error(message.error));
      };
      this.child.on("message", onMessage).on("exit", onExit);
      this.child.send(job);
    });
  }
}
