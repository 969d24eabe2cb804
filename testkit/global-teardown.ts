import "./global-setup";

export default async function teardown(): Promise<void> {
  if (!globalThis.testPostgres) return; // the server of TEST_POSTGRES_URL belongs to the user
  await globalThis.testPostgres.stop();
  globalThis.testPostgres = undefined;
  delete process.env.TEST_POSTGRES_URL; // in watch mode the next run's setup would take it for the user's
}
