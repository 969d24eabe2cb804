import { chmodSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { startEmbeddedPostgres, type EmbeddedPostgres } from "../../scripts/embedded-postgres";
import { readPidFile } from "../../scripts/postgres-binaries";
import { build } from "../../testkit/build";
import { runCleanups } from "../../testkit/cleanups";
import { RabbitMQ } from "../../testkit/rabbitmq";

/** RabbitMQ's default since 4.0; Debian's version would allow 128 MiB. */
const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;

/** The common base of the attacked shops: a build, a PostgreSQL and a RabbitMQ that belong to the run. */
export class Infrastructure {
  private readonly stops: (() => unknown)[] = [];
  private rabbit: Promise<RabbitMQ> | undefined;

  private constructor(
    readonly folder: string,
    readonly build: string,
    readonly logs: string,
    readonly postgres: EmbeddedPostgres,
    readonly postmaster: number,
  ) {}

  static async prepare(): Promise<Infrastructure> {
    const folder = mkdtempSync(path.join(tmpdir(), "shop-abuse-"));
    chmodSync(folder, 0o755); // PostgreSQL runs as another user if we are root
    const logs = path.join(folder, "logs");
    mkdirSync(logs);
    const dataDir = path.join(folder, "postgres");
    const built = await build(folder); // before PostgreSQL starts, which would be left running if the build failed
    const postgres = await startEmbeddedPostgres({ dataDir, databases: [], settings: { max_connections: "200" } });
    const infrastructure = new Infrastructure(folder, built, logs, postgres, readPidFile(path.join(dataDir, "postgres")).pid);
    infrastructure.onStop(() => postgres.stop());
    return infrastructure;
  }

  /** Starts RabbitMQ on first use. @returns its URL */
  async amqp(): Promise<string> {
    this.rabbit ??= this.startRabbit();
    return (await this.rabbit).url;
  }

  private async startRabbit(): Promise<RabbitMQ> {
    const rabbit = await RabbitMQ.start(path.join(this.folder, "rabbitmq"), { config: `max_message_size = ${MAX_MESSAGE_BYTES}\n` });
    this.onStop(() => rabbit.stop());
    return rabbit;
  }

  /** Registers a cleanup. Cleanups run in reverse order, and their promises are awaited. */
  onStop(stop: () => unknown): void {
    this.stops.push(stop);
  }

  async stop(keepLogs: boolean): Promise<void> {
    await runCleanups(this.stops);
    const parts = keepLogs ? ["build", "postgres", "rabbitmq", "compile-cache", "tsconfig.json"] : [""];
    for (const part of parts) rmSync(path.join(this.folder, part), { recursive: true, force: true, maxRetries: 5 });
  }
}
