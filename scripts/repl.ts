import { ownsDatabase, SERVICES } from "../config";
import { REPL } from "./commands";
import { openConsole } from "./console";
import { besideNode, startNode } from "./node";
import { run } from "./run";

/**
 * `npm run repl`: Moleculer's console, with our own commands. With TRANSPORTER it joins the running nodes and hosts nothing; without, it
 * hosts every service except the gateway, even while `npm start` is running.
 */
run(async (config, onStop) => {
  const services = config.transporter === undefined ? SERVICES.filter(ownsDatabase) : [];
  const { broker } = await startNode({ config, services, onStop, broker: { replOptions: REPL, nodeID: besideNode(config) } });
  openConsole(broker);
  return undefined;
});
