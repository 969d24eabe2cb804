import { REPL } from "./commands";
import { openConsole } from "./console";
import { startNode } from "./node";
import { run } from "./run";

/** `npm run dev`: as `npm start`, with hot reload of services and a REPL. */
run(async (config, onStop) => {
  const options = { hotReload: true, replOptions: REPL };
  const { broker } = await startNode({ config, services: config.services, onStop, ops: true, broker: options });
  openConsole(broker);
  return undefined;
});
