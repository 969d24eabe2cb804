import { once } from "node:events";
import { createServer } from "node:net";
import { databaseNames, type Config } from "../config";
import { serversOf } from "../mixins/database-url";
import { startNode } from "./node";
import { run } from "./run";

/** `npm start`: one node, with the services that the configuration names. */
run(async (config, onStop) => {
  if (config.services.includes("api")) await checkPort(config);
  const since = performance.now();
  const { broker } = await startNode({ config, services: config.services, onStop, ops: true });
  const lines = welcome(config, performance.now() - since);
  if (config.log.format === "json") broker.logger.info(lines[0]);
  else console.log(["", ...lines, ""].join("\n"));
  return undefined;
}, true);

/** Checks the port first, to avoid starting a database in vain. */
async function checkPort({ port, host }: Config): Promise<void> {
  const probe = createServer().listen(port, host);
  try {
    await once(probe, "listening");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unknown";
    throw new Error(`the gateway can't listen on ${host}:${port} (${code}): set PORT or HOST, or stop the process that uses the port`, {
      cause: error,
    });
  }
  probe.close();
  await once(probe, "close");
}

/** The first line says all that a log needs. */
function welcome(config: Config, tookMs: number): string[] {
  const where = databaseNames()
    .filter(([service]) => config.services.includes(service))
    .map(([service]) => `  ${service.padEnd(9)}${describeDatabase(config.databases[service], config)}`);
  const url = `http://${config.host === "0.0.0.0" ? "localhost" : config.host}:${config.port}${config.basePath}`;
  const isGateway = config.services.includes("api");
  const what = config.hostsAll ? "The shop" : "This node";
  return [
    `${what} is ready after ${(tookMs / 1000).toFixed(1)} s: ${config.services.join(", ")} on node ${config.nodeId}`,
    ...(isGateway ? [`  gateway  ${url}`] : []),
    ...where,
    `  nodes    ${describeNodes(config)}`,
    ...(isGateway && config.hostsAll
      ? [
          "",
          "Try next:",
          `  curl ${url}/health`,
          `  curl ${url}/products`,
          `  ${url}/docs in a browser`,
          "or follow the walk through the shop in README.md. Ctrl-C stops everything; the data are kept.",
        ]
      : ["", "Ctrl-C stops this node; other nodes keep running."]),
  ];
}

function describeNodes({ transporter }: Config): string {
  if (transporter === undefined) return "one process";
  return `connected through RabbitMQ at ${transporter.map((url) => new URL(url).host).join(", ")}`;
}

function describeDatabase(url: string | undefined, { dataDir }: Config): string {
  if (url === undefined) return `embedded PostgreSQL, data in ${dataDir}`;
  const servers = serversOf(url).map((server) => new URL(server));
  return `PostgreSQL at ${servers.map(({ host }) => host).join(",")}${servers[0]?.pathname ?? ""}`;
}
