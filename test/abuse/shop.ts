import path from "node:path";
import type { QueryResultRow } from "pg";
import { databaseNames, DATABASES, SERVICES, type DatabaseName, type ServiceName } from "../../config";
import { freePorts } from "../../testkit/free-ports";
import { NODE_FLAGS } from "../../testkit/node-flags";
import { isAlive } from "../../testkit/process-tree";
import { isOk, startProgram, type RunningProgram } from "../../testkit/program";
import { sql } from "../../testkit/sql";
import { eventually } from "../../testkit/until";
import { setCpuWeight } from "./cpu-weight";
import type { Infrastructure } from "./infrastructure";

/** `one`: everything in one process, on the local bus. `nodes`: one process per service, connected by RabbitMQ. */
export const LAYOUTS = ["one", "nodes"] as const;
export type Layout = (typeof LAYOUTS)[number];

/** The nice value of twice the usual CPU weight, which docker-compose.yml gives users: 1.25³ ≈ 2. */
const TWICE = -3;

/** A place for one process, whose ports stay the same across restarts. */
interface Slot {
  name: string;
  service: ServiceName | undefined;
  port: number;
  opsPort: number;
  process: RunningProgram | undefined;
}

/** A shop with the default configuration, in its own processes. */
export class Shop {
  private constructor(
    private readonly infrastructure: Infrastructure,
    readonly layout: Layout,
    private readonly slots: readonly Slot[],
    private readonly env: Readonly<Record<string, string>>,
  ) {}

  static async start(infrastructure: Infrastructure, layout: Layout): Promise<Shop> {
    const services: (ServiceName | undefined)[] = layout === "one" ? [undefined] : [...SERVICES];
    const slots = await Promise.all(
      services.map(async (service): Promise<Slot> => {
        const [port = 0, opsPort = 0] = await freePorts(2);
        return { name: service ?? "shop", service, port, opsPort, process: undefined };
      }),
    );
    const env: Record<string, string> = {
      LOG_FORMAT: "json", // makes the level of each line readable
      NAMESPACE: `abuse-${layout}`,
      NODE_COMPILE_CACHE: path.join(infrastructure.folder, "compile-cache"),
      ...(layout === "nodes" && { TRANSPORTER: await infrastructure.amqp() }),
    };
    const shop = new Shop(infrastructure, layout, slots, env);
    for (const [service, variable] of databaseNames()) env[variable] = shop.databaseUrl(service);
    infrastructure.onStop(() => shop.stop());
    await shop.launch();
    return shop;
  }

  get url(): string {
    const gateway = this.slots.find(({ service }) => service === undefined || service === "api");
    return `http://127.0.0.1:${gateway?.port ?? 0}`;
  }

  get processes(): RunningProgram[] {
    return this.slots.flatMap(({ process }) => process ?? []);
  }

  get ops(): string[] {
    return this.slots.map(({ opsPort }) => `http://127.0.0.1:${opsPort}`);
  }

  databaseUrl(service: DatabaseName): string {
    return this.infrastructure.postgres.url(`${this.layout}_${service}`);
  }

  sql<Row extends QueryResultRow>(service: DatabaseName, text: string, values?: unknown[]): Promise<Row[]> {
    return sql<Row>(this.databaseUrl(service), text, values);
  }

  /** Starts processes that aren't running. */
  async launch(): Promise<void> {
    await Promise.all(this.slots.map((slot) => this.launchOne(slot)));
    await eventually("the whole shop responds", () => isOk(`${this.url}/health`), 60_000);
  }

  private async launchOne(slot: Slot): Promise<void> {
    const { name, service, port, opsPort } = slot;
    if (slot.process !== undefined && isAlive(slot.process.pid)) return;
    const database = service === undefined || service === "api" ? undefined : DATABASES[service];
    const databases = service === undefined ? Object.values(DATABASES) : database === undefined ? [] : [database];
    const shared = Object.entries(this.env).filter(([key]) => !key.endsWith("_DATABASE_URL") || databases.some((one) => one === key));
    slot.process = await startProgram({
      name: `${this.layout}-${name}`,
      cwd: this.infrastructure.build,
      logs: this.infrastructure.logs,
      args: [...NODE_FLAGS, "scripts/start.js"],
      env: {
        ...Object.fromEntries(shared),
        NODE_ID: `${this.layout}-${name}-${Date.now()}`,
        PORT: String(port),
        OPS_PORT: String(opsPort),
        ...(service !== undefined && { SERVICES: service }),
      },
      ready: () => isOk(`http://127.0.0.1:${opsPort}/ready`),
    });
    if (service === "users") setCpuWeight(slot.process.pid, TWICE);
  }

  /** Replaces all processes, on the same ports and databases. */
  async restart(): Promise<void> {
    await this.stop();
    await this.launch();
  }

  async stop(): Promise<void> {
    await Promise.all(this.processes.map((process) => process.stop()));
    for (const slot of this.slots) slot.process = undefined;
  }
}
