import path from "node:path";
import { databaseNames, loadConfig } from "../config";
import { migrateWhenFree } from "../mixins/migrations";
import { provideDatabases, serviceFile, stopOf } from "./node";
import { run } from "./run";

/** Maximum wait for a lock that a migration needs, in ms. */
const GIVE_UP_AFTER_MS = 5 * 60_000;

/** `npm run migrate`: migrates every configured database to its newest schema, as each service does for its own database at start. */
run(async (config, onStop) => {
  const services = databaseNames()
    .map(([service]) => service)
    .filter((service) => config.services.includes(service));
  const providing = provideDatabases(config, services, console.error);
  onStop(stopOf(providing));
  const stop = await providing;
  const { databases } = loadConfig(); // with the embedded ones
  try {
    for (const service of services) {
      const url = databases[service];
      if (url === undefined) continue;
      await migrateWhenFree({
        url,
        giveUpAfterMs: GIVE_UP_AFTER_MS,
        directory: path.join(path.dirname(serviceFile(service)), "migrations"),
        log: (line) => {
          console.log(`${service}: ${line}`);
        },
      });
      console.log(`${service}: up to date`);
    }
  } finally {
    await stop();
  }
  return 0;
});
