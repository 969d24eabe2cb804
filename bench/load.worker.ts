import { setTimeout as pause } from "node:timers/promises";
import autocannon, { type Client } from "autocannon";
import { Agent, request } from "undici";
import { quantiles } from "../testkit/statistics";
import type { ClosedJob, ClosedResult, Job, Request, ToParent } from "./load";
import { openLoop } from "./open";

const send = (message: ToParent): void => void process.send?.(message);

process.on("message", (job: Job) => {
  const work = job.kind === "closed" ? closedLoop(job) : openLoop(job);
  work.then(
    (result) => {
      send({ result });
    },
    (error: unknown) => {
      send({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) });
    },
  );
});
process.once("disconnect", () => process.exit(0));

/** Number of prepared requests over all connections. A connection repeats its own in a loop. */
const PREPARED = 8_192;

/** A random selection for one connection. */
function draw(requests: readonly Request[], connections: number): Request[] {
  const count = Math.max(64, Math.ceil(PREPARED / connections));
  return Array.from({ length: count }, () => ({ ...requests[Math.floor(Math.random() * requests.length)] }) as Request);
}

async function closedLoop({ url, connections, warmUp, seconds, requests, logins }: ClosedJob): Promise<ClosedResult> {
  const latencies: number[] = [];
  const failures: Record<string, number> = {};
  const fail = (what: string): void => void (failures[what] = (failures[what] ?? 0) + 1);
  let measuring = false;

  const instance = autocannon(
    {
      url,
      connections,
      duration: warmUp + seconds + 60, // it is stopped earlier
      timeout: 10,
      sampleInt: 100,
      setupClient: (client: Client) => {
        client.setRequests(draw(requests, connections));
      },
    },
    () => undefined,
  );
  instance.on("response", (_client, status, _bytes, ms) => {
    if (status >= 200 && status < 300) {
      if (measuring) latencies.push(ms);
    } else fail(String(status));
  });
  instance.on("reqError", (error: Error) => {
    fail(error.message);
  });
  const background = new Background(url, logins);

  await pause(warmUp * 1_000);
  send({ edge: "begin" });
  const since = performance.now();
  measuring = true;
  background.reset();
  await pause(seconds * 1_000);
  measuring = false;
  const took = (performance.now() - since) / 1_000;
  send({ edge: "end" });
  const { count, refused } = background;

  const done = new Promise((resolve) => instance.once("done", resolve));
  instance.stop();
  await Promise.all([done, background.stop()]);
  const [p50 = 0, p99 = 0] = quantiles(latencies, [0.5, 0.99]);
  return { rate: latencies.length / took, p50, p99, requests: latencies.length, failures, logins: count, refusedLogins: refused };
}

/** Keeps a fixed number of logins in flight. */
class Background {
  count = 0;
  refused = 0;
  private stopped = false;
  private readonly all: Promise<unknown>;

  constructor(
    private readonly url: string,
    logins: ClosedJob["logins"],
  ) {
    this.all = Promise.all(Array.from({ length: logins?.concurrency ?? 0 }, (_, n) => this.loop(logins?.body ?? "", n)));
  }

  reset(): void {
    this.count = 0;
    this.refused = 0;
  }

  /** Each loop uses its own address if possible: the shop queues few passwords per address. */
  private async loop(body: string, n: number): Promise<void> {
    const dispatcher = new Agent(process.platform === "linux" ? { connect: { localAddress: `127.0.1.${n + 1}` } } : {});
    const headers = { "Content-Type": "application/json" };
    while (!this.stopped) {
      try {
        const response = await request(`${this.url}/token`, { method: "POST", headers, body, dispatcher });
        await response.body.dump();
        if (response.statusCode === 200) this.count++;
        else this.refused++;
      } catch {
        this.refused++;
      }
    }
    await dispatcher.close();
  }

  async stop(): Promise<void> {
    this.stopped = true;
    await this.all;
  }
}
