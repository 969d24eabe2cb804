import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { ServiceBroker, type ServiceSchema } from "moleculer";
import { Client as Postgres } from "pg";
import { ContractValidator } from "../../../broker/validator";
import { databaseMixin, type WithDatabase } from "../../../mixins/database.mixin";
import { serversOf } from "../../../mixins/database-url";
import { migrate } from "../../../mixins/migrations";
import { clientOf } from "../../../mixins/primary";
import { startEmbeddedPostgres } from "../../../scripts/embedded-postgres";
import { until } from "../../../testkit/until";
import { startTestPostgres, type TestPostgres } from "../../../testkit/postgres";
import { startStandby } from "../../../testkit/standby";

type Server = Pick<TestPostgres, "url">;
/** Two servers with the same password. In a test one accepts writes, and the other is read-only like a standby. */
let servers: [TestPostgres, TestPostgres];

const sql = async (url: string, ...statements: string[]): Promise<unknown[]> => {
  const client = new Postgres(url);
  await client.connect();
  try {
    let rows: unknown[] = [];
    for (const statement of statements) ({ rows } = await client.query<object>(statement));
    return rows;
  } finally {
    await client.end();
  }
};
const isReadOnly = async (url: string) => (await sql(url, "show default_transaction_read_only"))[0];
/** Sets whether a server accepts writes on new connections. */
async function takesWrites(server: Server, takes: boolean): Promise<void> {
  const wanted = takes ? "off" : "on";
  const admin = server.url("postgres");
  await sql(admin, `alter system set default_transaction_read_only = ${wanted}`, "select pg_reload_conf()");
  await until("new connections have the setting", async () => JSON.stringify(await isReadOnly(admin)).includes(`"${wanted}"`));
}
const passwordOf = (server: Server) => new URL(server.url("postgres")).password;
/** A URL in libpq's form, with the servers in the given order. */
function urlOf(name: string, ...[first, ...others]: [Server, ...Server[]]): string {
  const { host } = new URL(first.url(name));
  return first.url(name).replace(host, [host, ...others.map((other) => new URL(other.url(name)).host)].join(","));
}
async function portOf(url: string): Promise<number> {
  const client = new (clientOf(url))(serversOf(url)[0]);
  await client.connect();
  await client.end();
  return client.port;
}
const port = (server: Server): number => Number(new URL(server.url("postgres")).port);

beforeAll(async () => {
  servers = await Promise.all([startTestPostgres(), startTestPostgres()]);
  await sql(servers[1].url("postgres"), `alter role postgres password '${passwordOf(servers[0])}'`);
  const { url, stop } = servers[1];
  servers[1] = { url: (name) => url(name).replace(new URL(url(name)).password, passwordOf(servers[0])), stop };
});
afterAll(async () => {
  await Promise.all(servers.map((server) => server.stop()));
});
beforeEach(async () => {
  await takesWrites(servers[0], true);
  await takesWrites(servers[1], false);
});

describe("of several servers in a URL", () => {
  it("the one that accepts writes is used, whatever its position, and after a switchover the other one", async () => {
    const [first, second] = servers;
    expect(await portOf(urlOf("postgres", first, second))).toBe(port(first));
    expect(await portOf(urlOf("postgres", second, first))).toBe(port(first));
    await takesWrites(first, false);
    await takesWrites(second, true);
    expect(await portOf(urlOf("postgres", first, second))).toBe(port(second));
  });

  it("an unavailable one is skipped", async () => {
    const [first] = servers;
    const { host } = new URL(first.url("postgres"));
    expect(await portOf(first.url("postgres").replace(host, `127.0.0.1:1,${host}`))).toBe(port(first));
  });

  it("none is used if none accepts writes, and the error gives the reasons without a password", async () => {
    const [first, second] = servers;
    await takesWrites(first, false);
    const refusal = portOf(urlOf("postgres", first, second));
    await expect(refusal).rejects.toThrow(
      /^no server accepts writes \(127\.0\.0\.1:\d+: the server is read-only, 127\.0\.0\.1:\d+: the server is read-only\)$/,
    );
  });

  it("an error of a reachable one is passed on, such as a missing database", async () => {
    await expect(portOf(urlOf("nowhere", ...servers))).rejects.toMatchObject({ code: "3D000" });
  });
});

it("a read-only primary serves reads if the other server is its standby, but not if the standby is unavailable", async () => {
  const folder = await mkdtemp(path.join(tmpdir(), "shop-primary-"));
  const primary = await startEmbeddedPostgres({ dataDir: path.join(folder, "primary"), databases: [], settings: { fsync: "off" } });
  try {
    const standby = await startStandby(path.join(folder, "primary/postgres"), primary.url("postgres"), folder);
    const both = urlOf("postgres", standby, primary);
    try {
      expect(await portOf(both)).toBe(port(primary));
      await takesWrites(primary, false);
      expect(await portOf(both)).toBe(port(primary));
    } finally {
      await standby.stop();
    }
    await expect(portOf(both)).rejects.toThrow(/no server accepts writes .*: the server is read-only/);
  } finally {
    await primary.stop();
    await rm(folder, { recursive: true });
  }
});

it("a service creates and migrates its database on the server that accepts writes, and switches to the other server once that does", async () => {
  const [first, second] = servers;
  const directory = await mkdtemp(path.join(tmpdir(), "shop-primary-"));
  await writeFile(path.join(directory, "001_things.sql"), "create table things (n int not null)");
  await takesWrites(second, true);
  await migrate({ url: second.url("things"), directory }); // as replication would have done
  await takesWrites(second, false);
  const url = urlOf("things", second, first);
  const things = databaseMixin({ service: "things", url, migrations: directory, model: { name: "things", define: {} } });
  const broker = new ServiceBroker({ nodeID: "things", logger: false, validator: new ContractValidator({}) });
  const schema: ServiceSchema = { name: "things", mixins: [things] };
  broker.createService(schema);
  const service = broker.getLocalService("things") as unknown as WithDatabase;
  const insert = (n: number) => service.db.query("insert into things (n) values ($1) returning n", [n]);
  try {
    await broker.start();
    await insert(1);
    expect(await sql(first.url("things"), "select n from things")).toEqual([{ n: 1 }]);

    await first.stop();
    await takesWrites(second, true);
    await until("the service uses the other server", () =>
      insert(2).then(
        () => true,
        () => false,
      ),
    );
    expect(await service.lists.read((db) => db.query("select n from things"))).toEqual([{ n: 2 }]);
  } finally {
    await broker.stop();
    await rm(directory, { recursive: true });
  }
});
