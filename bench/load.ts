import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { cpuOf, difference, memoryOf, type Roles } from "./cost";
import type { Ground } from "./ground";

export interface Request {
  method: "GET" | "POST";
  path: string;
  headers?: Record<string, string>;
  body?: string;
}

interface Common {
  url: string;
  connections: number;
  /** From which each is chosen at random. */
  requests: Request[];
}

/** Each connection sends its next request when it has its answer. */
export interface ClosedJob extends Common {
  kind: "closed";
  /** Seconds. */
  seconds: number;
  /** Seconds before it is measured. */
  warmUp: number;
  /** Logins that are always under way beside it. */
  logins?: { concurrency: number; body: string };
}

/** Requests leave at their time, whether others are answered or not; one that finds no connection free is not sent. */
export interface OpenJob extends Common {
  kind: "open";
  /** One after the other: so many requests a second, for so many seconds. */
  phases: { rate: number; seconds: number }[];
}

export type Job = ClosedJob | OpenJob;

export interface ClosedResult {
  /** 2xx answers a second. */
  rate: number;
  /** ms */
  p50: number;
  p99: number;
  /** 2xx answers in the measured time. */
  requests: number;
  /** By status or error, whenever in the run. */
  failures: Record<string, number>;
  /** Of the logins beside it. */
  logins: number;
  refusedLogins: number;
}

/** One second of an open loop, counted where the answer came. */
export interface Second {
  due: number;
  /** no connection was free */
  unsent: number;
  /** answered 2xx, 503, anything else, and not at all */
  ok: number;
  refused: number;
  other: number;
  broken: number;
  /** ms from the moment it was due */
  okP50: number;
  okP99: number;
  /** ms from the moment it was sent: that is how long the shop took to say no */
  refusedP99: number;
}

export interface OpenResult {
  seconds: Second[];
  /** Of each order that was accepted: its id, and when its request was due, in ms since 1970. */
  orders: [string, number][];
  failures: Record<string, number>;
}

export type ToParent = { edge: "begin" | "end" } | { result: ClosedResult | OpenResult } | { error: string };

export interface Measured extends ClosedResult {
  /** CPU ms a request, by role. */
  cpu: Record<string, number>;
  /** MB, by role. */
  rss: Record<string, number>;
}

/** The one generator of every target's load, in a process of its own. */
export class Generator {
  private constructor(
    private readonly child: ChildProcess,
    private readonly ground: Ground,
  ) {}

  static async start(ground: Ground): Promise<Generator> {
    const child = fork(path.join(ground.build, "bench/load.worker.js"), { stdio: ["ignore", "inherit", "inherit", "ipc"], detached: true });
    ground.onStop(() => Promise.resolve(child.kill("SIGKILL")));
    await once(child, "spawn");
    return new Generator(child, ground);
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  /** Measures with the cost of each process. */
  async closed(job: Omit<ClosedJob, "kind">, roles: Roles): Promise<Measured> {
    const { postmaster, rabbit } = this.ground;
    const all: Roles = { ...roles, generator: [this.pid], ...(rabbit !== undefined && { rabbitmq: [rabbit] }) };
    let before = {};
    let after = {};
    const result = await this.run({ ...job, kind: "closed" }, (edge) => {
      if (edge === "begin") before = cpuOf(all, postmaster);
      else after = cpuOf(all, postmaster);
    });
    if (!("rate" in result)) throw new Error("the generator answered another question");
    const cpu = Object.entries(difference(before, after)).map(([role, s]): [string, number] => [role, (1_000 * s) / result.requests]);
    return { ...result, cpu: Object.fromEntries(cpu), rss: memoryOf(all) };
  }

  async open(job: Omit<OpenJob, "kind">): Promise<OpenResult> {
    const result = await this.run({ ...job, kind: "open" }, () => undefined);
    if (!("orders" in result)) throw new Error("the generator answered another question");
    return result;
  }

  private run(job: Job, onEdge: (edge: "begin" | "end") => void): Promise<ClosedResult | OpenResult> {
    return new Promise((resolve, reject) => {
      const ended = (): void => {
        reject(new Error("the load generator has ended"));
      };
      const heard = (message: ToParent): void => {
        if ("edge" in message) {
          onEdge(message.edge);
          return;
        }
        this.child.off("message", heard).off("exit", ended);
        if ("result" in message) resolve(message.result);
        else reject(new Error(message.error));
      };
      this.child.on("message", heard).on("exit", ended);
      this.child.send(job);
    });
  }
}
