import { execFile } from "node:child_process";
import { chown, mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { ServiceBroker, type ServiceSchema } from "moleculer";
import { ContractValidator } from "../../../broker/validator";
import { databaseMixin, type WithDatabase } from "../../../mixins/database.mixin";
import { migrate } from "../../../mixins/migrations";
import { startEmbeddedPostgres, type EmbeddedPostgres } from "../../../scripts/embedded-postgres";

const run = promisify(execFile);
const ENCRYPTED = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";

let folder: string;
let server: EmbeddedPostgres;

/** Creates a self-signed certificate for 127.0.0.1: `<name>.crt` and `<name>.key`. */
async function certify(directory: string, name: string): Promise<void> {
  const files = ["-keyout", path.join(directory, `${name}.key`), "-out", path.join(directory, `${name}.crt`)];
  const subject = ["-subj", `/CN=${name}`, "-addext", "subjectAltName=IP:127.0.0.1"];
  await run("openssl", ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", ...subject, ...files]);
}

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "shop-test-tls-"));
  const options = { dataDir: path.join(folder, "data"), databases: ["things"], settings: { fsync: "off" } };
  await (await startEmbeddedPostgres(options)).stop(); // creates the cluster, in which the server looks for server.crt and server.key
  const cluster = path.join(options.dataDir, "postgres");
  await certify(cluster, "server");
  const { uid, gid } = await stat(cluster);
  for (const name of ["server.crt", "server.key"]) await chown(path.join(cluster, name), uid, gid);
  await certify(folder, "other");
  await writeFile(path.join(folder, "001_things.sql"), "create table things (n int not null)");
  server = await startEmbeddedPostgres({ ...options, settings: { ...options.settings, ssl: "on" } });
});

afterAll(async () => {
  await server.stop();
  await rm(folder, { recursive: true });
});

const verified = (certificate: string): string =>
  `${server.url("things")}?sslmode=verify-full&sslrootcert=${encodeURIComponent(path.join(folder, certificate))}`;

it("with sslmode=verify-full and the server's authority, migrations, statements and lists are encrypted", async () => {
  const model = { name: "things", define: {} };
  const things = databaseMixin({ service: "things", url: verified("data/postgres/server.crt"), migrations: folder, model });
  const broker = new ServiceBroker({ nodeID: "things", logger: false, validator: new ContractValidator({}) });
  const schema: ServiceSchema = { name: "things", mixins: [things] };
  broker.createService(schema);
  try {
    await broker.start(); // migrates first
    const { db, lists } = broker.getLocalService("things") as unknown as WithDatabase;
    expect(await db.query("select n from things")).toEqual([]);
    expect(await db.query(ENCRYPTED)).toEqual([{ ssl: true }]);
    expect(await lists.read((reader) => reader.query(ENCRYPTED))).toEqual([{ ssl: true }]);
  } finally {
    await broker.stop();
  }
});

it("with another authority, no connection is made", async () => {
  await expect(migrate({ url: verified("other.crt"), directory: folder })).rejects.toThrow(/self[- ]signed certificate|unable to verify/);
});
