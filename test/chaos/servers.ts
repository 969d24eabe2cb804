import path from "node:path";
import { databaseNames, type DatabaseName } from "../../config";
import { DATABASE_NAMES } from "../../scripts/node";
import { PostgresServer } from "./postgres-server";
import { Proxy } from "./proxy";

const roleOf = (database: DatabaseName): string => `${database}_svc`;

/** Where a shop's databases are when one of them shall fall back: on a server of its own, the two others on another. Each has a role of its own. */
export class Servers {
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

  /** As its service has it. */
  url(name: string): string {
    const service = databaseNames().find(([one]) => DATABASE_NAMES[one] === name)?.[0];
    return this.of(name).url(name, service && roleOf(service));
  }

  /** The server of the database that falls back. */
  get own(): PostgresServer {
    return this.of(DATABASE_NAMES[this.database]);
  }

  /** As its service has it: of the primary and the standby, it goes to the one that takes writes. */
  get urlOfBoth(): string {
    const url = new URL(this.url(DATABASE_NAMES[this.database]));
    const hosts = [this.own, this.following().server].map(({ port }) => `127.0.0.1:${port}`);
    return `postgres://${url.username}@${hosts.join(",")}${url.pathname}?target_session_attrs=read-write`;
  }

  /** It gets an asynchronous standby, whose line to it can be cut. */
  async follow(): Promise<void> {
    const line = await Proxy.to(this.own.url("postgres"), 5432);
    const server = await this.own.standby(path.join(this.folder, "standby"), "standby", line.url);
    this.all.push(server);
    this.follower = { server, line };
  }

  /** From now on the standby hears of nothing more; of all before it has heard. */
  async cutOff(): Promise<void> {
    const { server, line } = this.following();
    await this.own.isFollowedBy(server);
    line.freeze();
  }

  /** The primary is gone for good, and the standby takes its place. @returns the time of the last commit that it has heard of */
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
