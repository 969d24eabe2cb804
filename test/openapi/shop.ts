import { createDatabase, startTestPostgres } from "../../testkit/postgres";
import { killProcesses, startProcess } from "../../testkit/node-process";

export const ADMIN = { email: "admin@shop.test", password: "an admin's password" };

/**
 * Starts the shop in one process, on the PostgreSQL of TEST_POSTGRES_URL or on a new one.
 * @param stops what to call afterwards, in reverse order; complete even if the start fails
 * @returns the URL of the gateway
 */
export async function startShop(stops: (() => Promise<void>)[]): Promise<string> {
  if (!process.env.TEST_POSTGRES_URL) {
    const server = await startTestPostgres();
    stops.push(() => server.stop());
    process.env.TEST_POSTGRES_URL = server.url("postgres");
  }
  const urls: string[] = [];
  for (const name of ["openapi_users", "openapi_products", "openapi_orders"]) {
    const database = await createDatabase(name);
    stops.push(() => database.drop());
    urls.push(database.url);
  }
  stops.push(killProcesses);
  const [users = "", products = "", orders = ""] = urls;
  const node = await startProcess({
    env: {
      USERS_DATABASE_URL: users,
      PRODUCTS_DATABASE_URL: products,
      ORDERS_DATABASE_URL: orders,
      ADMIN_EMAIL: ADMIN.email,
      ADMIN_PASSWORD: ADMIN.password,
      LOG_LEVEL: "error",
    },
  });
  stops.push(async () => {
    await node.stop();
  });
  return node.url ?? "";
}
