import { execFile } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { appendFile, chown, mkdir } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import type { QueryResultRow } from "pg";
import { freePorts } from "../../testkit/free-ports";
import { sql } from "../../testkit/sql";
import { eventually } from "../../testkit/until";

const run = promisify(execFile);
const VERSIONS = "/usr/lib/postgresql";
/** PostgreSQL refuses to run as root, and initdb looks up the user's name: the user `nobody` has one. */
export const USER = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};
const COMMAND_MS = 120_000;
const NEEDED = ["initdb", "pg_ctl", "pg_basebackup", "pg_dump", "pg_restore", "psql"];

/** The folder of the newest installed Debian PostgreSQL, which has the programs for backups and standbys that the embedded one lacks. */
export function debianPrograms(): string | undefined {
  if (!existsSync(VERSIONS)) return undefined;
  const newestFirst = readdirSync(VERSIONS).sort((a, b) => Number(b) - Number(a));
  const folders = newestFirst.map((version) => path.join(VERSIONS, version, "bin"));
  return folders.find((bin) => NEEDED.every((program) => existsSync(path.join(bin, program))));
}

/** @returns why such a server can't run here */
export const withoutPostgres = (): string | undefined =>
  debianPrograms() === undefined ? "Debian's postgresql is not installed" : undefined;

/** A PostgreSQL server from Debian's package, with its own folder and port. It accepts local connections without a password. */
export class PostgresServer {
  private constructor(
    private readonly bin: string,
    private readonly folder: string,
    readonly port: number,
  ) {}

  /** Creates an empty server and starts it. @param settings for postgresql.conf @param initdb additional options of initdb */
  static async create(
    folder: string,
    settings: Readonly<Record<string, string | number>> = {},
    initdb: readonly string[] = [],
  ): Promise<PostgresServer> {
    const server = await PostgresServer.at(folder);
    const options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", ...initdb];
    await server.run("initdb", "-D", server.data, ...options);
    await server.configure({ listen_addresses: "127.0.0.1", unix_socket_directories: "", max_connections: 200, ...settings });
    await server.start();
    return server;
  }

  private static async at(folder: string): Promise<PostgresServer> {
    const bin = debianPrograms();
    if (bin === undefined) throw new Error(withoutPostgres());
    await mkdir(folder, { recursive: true });
    if (USER.uid !== undefined) await chown(folder, USER.uid, USER.gid);
    const [port = 0] = await freePorts(1);
    return new PostgresServer(bin, folder, port);
  }

  private get data(): string {
    return path.join(this.folder, "data");
  }

  /** Appends settings. The last line of a setting wins, so a standby's settings override those copied from the primary. */
  private async configure(settings: Readonly<Record<string, string | number>>): Promise<void> {
    const lines = Object.entries({ port: this.port, ...settings }).map(([name, value]) => `${name} = '${value}'\n`);
    await appendFile(path.join(this.data, "postgresql.conf"), lines.join(""));
  }

  url(database: string, role = "postgres"): string {
    return `postgres://${role}@127.0.0.1:${this.port}/${database}`;
  }

  /** Runs SQL as the superuser. */
  sql<Row extends QueryResultRow>(text: string, database = "postgres"): Promise<Row[]> {
    return sql<Row>(this.url(database), text);
  }

  /** Runs a PostgreSQL program against this server. @returns its output */
  run(program: string, ...args: string[]): Promise<string> {
    return this.runWith({}, program, ...args);
  }

  private async runWith(more: Readonly<Record<string, string>>, program: string, ...args: string[]): Promise<string> {
    const env = {
      PATH: process.env["PATH"] ?? "",
      LC_ALL: "C",
      PGHOST: "127.0.0.1",
      PGPORT: String(this.port),
      PGUSER: "postgres",
      ...more,
    };
    return (await run(path.join(this.bin, program), args, { ...USER, cwd: this.folder, env, timeout: COMMAND_MS })).stdout;
  }

  /** @param env additional environment variables */
  async start(env: Readonly<Record<string, string>> = {}): Promise<void> {
    await this.runWith(env, "pg_ctl", "start", "-D", this.data, "-l", path.join(this.folder, "log"), "-w", "-t", "60");
  }

  get isRunning(): boolean {
    return existsSync(path.join(this.data, "postmaster.pid"));
  }

  /** `immediate`: without a checkpoint and without closing connections, as if killed. Does nothing if the server isn't running. */
  async stop(mode: "fast" | "immediate" = "fast"): Promise<void> {
    if (this.isRunning) await this.run("pg_ctl", "stop", "-D", this.data, "-m", mode, "-w", "-t", "60");
  }

  /**
   * Creates a standby that uses a replication slot. It is asynchronous until this server's `synchronous_standby_names` names it.
   * @param from the URL at which it reaches this server, such as that of a proxy which can be cut
   */
  async standby(folder: string, name: string, from = this.url("postgres")): Promise<PostgresServer> {
    const standby = await PostgresServer.at(folder);
    const primary = `host=127.0.0.1 port=${new URL(from).port} user=postgres application_name=${name}`;
    await standby.run("pg_basebackup", "-d", primary, "-D", standby.data, "-R", "-C", "-S", name, "-X", "stream", "-c", "fast");
    await standby.configure({});
    await standby.start();
    return standby;
  }

  /** Waits until a standby has replayed everything committed so far. */
  async isFollowedBy(standby: PostgresServer): Promise<void> {
    const [now] = await this.sql<{ lsn: string }>("select pg_current_wal_lsn()::text as lsn");
    const replayed = `select pg_last_wal_replay_lsn() >= '${now?.lsn ?? ""}'::pg_lsn as all`;
    await eventually("the standby has caught up", async () => (await standby.sql<{ all: boolean }>(replayed))[0]?.all);
  }

  /** Promotes a standby. @returns the time of the last commit that it has replayed, by the old primary's clock */
  async promote(): Promise<Date> {
    await this.run("pg_ctl", "promote", "-D", this.data, "-w", "-t", "60");
    const [last] = await this.sql<{ at: Date | null }>("select pg_last_xact_replay_timestamp() as at");
    return last?.at ?? new Date(0);
  }

  async createDatabase(name: string, owner: string): Promise<void> {
    await this.run("createdb", "--template=template0", `--owner=${owner}`, name);
    await this.sql(`revoke all on database ${name} from public`);
  }

  /** @returns the file, which only programs started by `run` can read */
  async dump(database: string): Promise<string> {
    const file = path.join(this.folder, `${database}.${Date.now()}.dump`);
    await this.run("pg_dump", "--format=custom", `--file=${file}`, database);
    return file;
  }

  /** Restores a dump beside a database that remains in use. @returns the name of the copy */
  async restoreBeside(file: string, database: string, owner: string): Promise<string> {
    const copy = `${database}_restored`;
    await this.createDatabase(copy, owner);
    await this.run("pg_restore", "--exit-on-error", `--dbname=${copy}`, file);
    await this.run("vacuumdb", "--quiet", "--analyze", copy);
    return copy;
  }

  /** Replaces a database by its copy and keeps it as `…_lost`. Clients are disconnected and reconnect to the copy. */
  async swap(database: string, copy: string): Promise<void> {
    const statements = [
      `drop database if exists ${database}_lost`,
      `alter database ${database} allow_connections false`,
      `select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '${database}'`,
      `alter database ${database} rename to ${database}_lost`,
      `alter database ${copy} rename to ${database}`,
    ];
    await this.run("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", ...statements.flatMap((one) => ["-c", one]), "postgres");
  }
}
