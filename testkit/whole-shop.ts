import { ADMIN } from "./admin";
import { createDatabases, dropDatabases, ensurePostgres, variablesOf, type TestDatabases } from "./databases";
import { killProcesses, startProcess, type NodeProcess } from "./node-process";

/**
 * For tools outside of jest: starts the shop in one process, with databases of its own.
 * @param cleanups what to run afterwards; complete even if the start fails
 */
export async function startWholeShop(
  cleanups: (() => unknown)[],
  env: Readonly<Record<string, string>> = {},
): Promise<{ node: NodeProcess; databases: TestDatabases }> {
  await ensurePostgres(cleanups);
  const databases = await createDatabases();
  cleanups.push(() => dropDatabases(databases), killProcesses);
  const admin = { ADMIN_EMAIL: ADMIN.email, ADMIN_PASSWORD: ADMIN.password };
  const node = await startProcess({ env: { ...variablesOf(databases), ...admin, LOG_LEVEL: "error", ...env } });
  cleanups.push(() => node.stop());
  return { node, databases };
}
