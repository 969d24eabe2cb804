import path from "node:path";
import { databaseNames, type DatabaseName } from "../../config";
import { DATABASE_NAMES } from "../../scripts/node";
import { Proxy } from "../../testkit/proxy";
import { PostgresServer } from "./postgres-server";

const roleOf = (database: DatabaseName): string => `${database}_svc`;

/** The servers of a shop one of whose databases is set back: one server for that database, one for the two others. Each has its own role. */
export class RestorableServers {
  private readonly all: PostgresServer[] = [];
  private readonly at = new Map<string, PostgresServer>();
  private follower: { server: PostgresServer; line: Proxy } | undefined;

  constructor(
    private readonly folder: string,
    readonly database: DatabaseName,
  ) {}

  async start(): Promise<void> {
    const [own, others] = [await this.create("own"), await this.create("others")];
    for (const [service] of databaseNames()) {
      const server = service === this.database ? own : others;
      await server.sql(`create role ${roleOf(service)} login`);
      await server.createDatabase(DATABASE_NAMES[service], roleOf(service));
      this.at.set(DATABASE_NAMES[service], server);
    }
  }

  private async create(name: string): Promise<PostgresServer> {
    const server = await PostgresServer.create(path.join(this.folder, name));
    this.all.push(server);
    return server;
  }

  private of(name: string): PostgresServer {
    const server = this.at.get(name);
    if (server === undefined) throw new Error(`no server has a database ${name}`);
    return server;
  }

  /** The URL with which its service connects. */
  url(name: string): string {
    const service = databaseNames().find(([one]) => DATABASE_NAMES[one] === name)?.[0];
    return this.of(name).url(name, service && roleOf(service));
  }

  /** The server of the database that is set back. */
  get own(): PostgresServer {
    return this.of(DATABASE_NAMES[this.database]);
  }

  /** A URL of both the primary and the standby, which connects to the one that accepts writes. */
  get urlOfBoth(): string {
    const url = new URL(this.url(DATABASE_NAMES[this.database]));
    const hosts = [this.own, this.following().server].map(({ port }) => `127.0.0.1:${port}`);
    return `postgres://${url.username}@${hosts.join(",")}${url.pathname}?target_session_attrs=read-write`;
  }

  /** Adds an asynchronous standby behind a proxy that can be cut. */
  async addStandby(): Promise<void> {
    const line = await Proxy.to(this.own.url("postgres"), 5432);
    const server = await this.own.standby(path.join(this.folder, "standby"), "standby", line.url);
    this.all.push(server);
    this.follower = { server, line };
  }

  /** Stops replication once the standby has caught up. */
  async stopReplication(): Promise<void> {
    const { server, line } = this.following();
    await this.own.isFollowedBy(server);
    line.freeze();
  }

  /** Stops the primary for good and promotes the standby. @returns the time of the last commit that the standby has replayed */
  async failOver(): Promise<Date> {
    const { server, line } = this.following();
    await this.own.stop("immediate");
    line.close();
    this.at.set(DATABASE_NAMES[this.database], server);
    this.follower = undefined;
    return server.promote();
  }

  private following() {
    if (this.follower === undefined) throw new Error("there is no standby");
    return this.follower;
  }

  /** May be called more than once. */
  async stop(): Promise<void> {
    this.follower?.line.close();
    for (const server of this.all) await server.stop("immediate");
  }
}
