import { startTestPostgres, type TestPostgres } from "./postgres";

declare global {
  var testPostgres: TestPostgres | undefined;
}

/** One PostgreSQL for the whole run, unless TEST_POSTGRES_URL names one already. */
export default async function setup(): Promise<void> {
  if (process.env.TEST_POSTGRES_URL) return;
  globalThis.testPostgres = await startTestPostgres();
  process.env.TEST_POSTGRES_URL = globalThis.testPostgres.url("postgres");
}
