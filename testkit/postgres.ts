import { randomUUID } from "node:crypto";
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "pg";
import { startEmbeddedPostgres } from "../scripts/embedded-postgres";
import { isAlive } from "./process-tree";

export interface TestPostgres {
  url(database: string): string;
  /** Stops the server and removes its data. */
  stop(): Promise<void>;
}

export interface TestDatabase {
  readonly url: string;
  /** Drops the database and closes its open connections. */
  drop(): Promise<void>;
}

const PREFIX = "shop-test-postgres-";

/** Starts a server that trades crash safety for speed. */
export async function startTestPostgres(): Promise<TestPostgres> {
  await removeAbandoned();
  const dataDir = await mkdtemp(join(tmpdir(), `${PREFIX}${process.pid}-`));
  const remove = (): Promise<void> => rm(dataDir, { recursive: true, force: true });
  const settings = { fsync: "off", synchronous_commit: "off", full_page_writes: "off", max_connections: "300" };
  try {
    const server = await startEmbeddedPostgres({ dataDir, databases: [], settings });
    return { url: server.url, stop: () => server.stop().then(remove) };
  } catch (error) {
    await remove();
    throw error;
  }
}

/** Creates a database with a unique name on the server of TEST_POSTGRES_URL, which is the URL of its database postgres. */
export async function createDatabase(prefix = "test"): Promise<TestDatabase> {
  const admin = process.env.TEST_POSTGRES_URL;
  if (!admin) throw new Error("TEST_POSTGRES_URL is not set: run the test with jest and its global setup");
  const name = `${prefix}_${randomUUID().replaceAll("-", "")}`;
  await execute(admin, (quoted) => `create database ${quoted}`, name);
  const url = new URL(admin);
  url.pathname = `/${encodeURIComponent(name)}`;
  return {
    url: url.href,
    drop: () => execute(admin, (quoted) => `drop database if exists ${quoted} with (force)`, name),
  };
}

/** Whether a server, or the pooler in front of it, accepts connections. */
export async function connects(url: string): Promise<boolean> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 1_000 });
  try {
    await client.connect();
    return true;
  } finally {
    await client.end();
  }
}

async function execute(url: string, statement: (quoted: string) => string, name: string): Promise<void> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(statement(client.escapeIdentifier(name)));
  } finally {
    await client.end();
  }
}

// An interrupted run skips its teardown and leaves its server running. The directory's name contains the pid of that run.
async function removeAbandoned(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const dataDir = join(tmpdir(), name);
    if (!name.startsWith(PREFIX) || isAlive(Number.parseInt(name.slice(PREFIX.length)))) continue;
    if ((await stat(dataDir)).uid !== process.getuid?.()) continue;
    try {
      const abandoned = await startEmbeddedPostgres({ dataDir, databases: [] });
      await abandoned.stop();
    } catch (error) {
      console.warn(`${dataDir} is removed although its server can't be stopped: ${String(error)}`);
    }
    await rm(dataDir, { recursive: true, force: true });
  }
}
