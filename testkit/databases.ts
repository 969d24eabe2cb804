import { databaseNames, type DatabaseName } from "../config";
import { createDatabase, startTestPostgres, type TestDatabase } from "./postgres";

/** A database for each service. */
export type TestDatabases = Readonly<Record<DatabaseName, TestDatabase>>;

/** Creates empty databases on the server of TEST_POSTGRES_URL. */
export async function createDatabases(): Promise<TestDatabases> {
  const made = databaseNames().map(async ([name]) => [name, await createDatabase(name)] as const);
  return Object.fromEntries(await Promise.all(made)) as Record<DatabaseName, TestDatabase>;
}

/** The variables of a node that uses these databases. */
export const variablesOf = (databases: Readonly<Record<DatabaseName, Pick<TestDatabase, "url">>>): Record<string, string> =>
  Object.fromEntries(databaseNames().map(([name, variable]) => [variable, databases[name].url]));

export async function dropDatabases(databases: TestDatabases | undefined): Promise<void> {
  await Promise.all(Object.values(databases ?? {}).map((database) => database.drop()));
}

/** For tools outside of jest, which has a global setup: starts a server, unless TEST_POSTGRES_URL names one. */
export async function ensurePostgres(cleanups: (() => unknown)[]): Promise<void> {
  if (process.env.TEST_POSTGRES_URL) return;
  const server = await startTestPostgres();
  cleanups.push(() => server.stop());
  process.env.TEST_POSTGRES_URL = server.url("postgres");
}
