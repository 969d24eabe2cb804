import { REPL } from "./commands";
import { openConsole } from "./console";
import { startNode } from "./node";
import { Reloader } from "./reload";
import { run } from "./run";

/** `npm run dev`: as `npm start`, with a console, and services are reloaded when their files change. */
run(async (config, onStop) => {
  const { broker } = await startNode({ config, services: config.services, onStop, ops: true, broker: { replOptions: REPL } });
  new Reloader(broker, config.services).start();
  openConsole(broker);
  return undefined;
});
