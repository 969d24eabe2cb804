import { Server } from "node:net";
import type { ServiceBroker } from "moleculer";
import { databaseNames, type Config } from "../config";
import { serversOf } from "../mixins/database-url";
import { startNode } from "./node";
import { run } from "./run";

/** `npm start`: one node, with the services that the configuration names. */
run(async (config, onStop) => {
  const since = performance.now();
  const { broker } = await startNode({ config, services: config.services, onStop, ops: true });
  const lines = welcome(config, portOf(broker) ?? config.port, performance.now() - since);
  if (config.log.format === "json") broker.logger.info(lines[0]);
  else console.log(["", ...lines, ""].join("\n"));
  return undefined;
}, true);

/** The first line says all that a log needs. */
function welcome(config: Config, port: number, tookMs: number): string[] {
  const where = databaseNames()
    .filter(([service]) => config.services.includes(service))
    .map(([service]) => `  ${service.padEnd(9)}${describeDatabase(config.databases[service], config)}`);
  const url = `http://${hostOf(config)}:${port}${config.basePath}`;
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

/** A host for URLs: an address of every interface is no destination, and an IPv6 address needs brackets (RFC 3986, 3.2.2). */
function hostOf({ host }: Config): string {
  if (host === "0.0.0.0" || host === "::") return "localhost";
  return host.includes(":") ? `[${host}]` : host;
}

/** The port that the gateway listens on, which PORT=0 leaves to the system; undefined on a node without a gateway. */
function portOf(broker: ServiceBroker): number | undefined {
  const gateway: unknown = broker.getLocalService("api");
  const server: unknown = typeof gateway === "object" && gateway !== null && "server" in gateway ? gateway.server : undefined;
  const address = server instanceof Server ? server.address() : null;
  return typeof address === "object" ? address?.port : undefined;
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
