import { availableParallelism } from "node:os";
import path from "node:path";
import { Piscina } from "piscina";
import { problem } from "../../broker/errors";
import type { compare, hash } from "./passwords.worker";

/** Waiting logins beyond this are refused at once: at the usual cost they would not be served in time anyway. */
const MAX_QUEUE = 32;
const MAX_THREADS = 4;

/** Hashes and compares passwords by bcrypt, off the event loop. */
export class Passwords {
  private readonly pool: Piscina;
  /** A hash of the same cost that no password has: an unknown e-mail takes as long as a wrong password. */
  private readonly nobody: Promise<string>;

  constructor(private readonly cost: number) {
    this.pool = new Piscina({
      filename: path.join(__dirname, `passwords.worker${path.extname(__filename)}`),
      minThreads: 1,
      maxThreads: Math.max(1, Math.min(MAX_THREADS, availableParallelism() - 1)), // a core stays free for the event loop
      maxQueue: MAX_QUEUE,
      execArgv: process.execArgv, // the TypeScript loader among them
    });
    this.nobody = this.run<typeof hash>("hash", { password: "nobody's password", cost });
    this.nobody.catch(() => undefined); // told to whoever compares
  }

  hash(password: string): Promise<string> {
    return this.run<typeof hash>("hash", { password, cost: this.cost });
  }

  /** @param hashed undefined for an unknown user: false, and not a moment earlier */
  async compare(password: string, hashed: string | undefined): Promise<boolean> {
    const matches = await this.run<typeof compare>("compare", { password, hashed: hashed ?? (await this.nobody) });
    return matches && hashed !== undefined;
  }

  close(): Promise<void> {
    return this.pool.close();
  }

  private async run<F extends (task: never) => Promise<unknown>>(name: string, task: Parameters<F>[0]): Promise<Awaited<ReturnType<F>>> {
    if (this.pool.queueSize >= MAX_QUEUE) throw problem("SERVICE_UNAVAILABLE", "too many logins at once");
    return (await this.pool.run(task, { name })) as Awaited<ReturnType<F>>; // the worker's function of this name
  }
}
