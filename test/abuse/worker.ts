import { fork, type ChildProcess } from "node:child_process";
import { setCpuWeight } from "./cpu-weight";

type FromWorker<Result> = { isReady: true } | { result: Result } | { error: string };

/** A process that does one job after the other. Separate processes keep one event loop from distorting another's measurements. */
export class Worker<Job extends object, Result> {
  private constructor(private readonly child: ChildProcess) {}

  /** Resolves when it is ready for a job. */
  static async start<Job extends object, Result>(file: string): Promise<Worker<Job, Result>> {
    const child = fork(file, { execArgv: ["--import", "tsx"], stdio: ["ignore", "inherit", "inherit", "ipc"], detached: true });
    const worker = new Worker<Job, Result>(child);
    await worker.next((message) => "isReady" in message || undefined);
    return worker;
  }

  /** @throws if the job fails or the process exits */
  run(job: Job): Promise<Result> {
    const result = this.next((message) => ("result" in message ? message.result : undefined));
    this.child.send(job);
    return result;
  }

  kill(): void {
    this.child.kill("SIGKILL");
  }

  private next<T>(pick: (message: FromWorker<Result>) => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const settle = (act: () => void): void => {
        this.child.off("message", onMessage).off("exit", onExit);
        act();
      };
      const onExit = (): void => {
        settle(() => {
          reject(new Error("a worker of the harness exited"));
        });
      };
      const onMessage = (message: FromWorker<Result>): void => {
        settle(() => {
          const picked = pick(message);
          if (picked !== undefined) resolve(picked);
          else reject(new Error("error" in message ? message.error : "a worker sent something unexpected"));
        });
      };
      this.child.on("message", onMessage).on("exit", onExit);
    });
  }
}

/** The worker's side. @param nice its priority; a worker must not take CPU time from the measured processes */
export function serve<Job, Result>(work: (job: Job) => Promise<Result>, nice = 0): void {
  setCpuWeight(process.pid, nice);
  const send = (message: FromWorker<Result>): void => void process.send?.(message);
  process.on("message", (job: Job) => {
    work(job).then(
      (result) => {
        send({ result });
      },
      (error: unknown) => {
        send({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) });
      },
    );
  });
  process.once("disconnect", () => process.exit(0));
  send({ isReady: true });
}
