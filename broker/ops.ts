import { createServer, type Server } from "node:http";
import { once } from "node:events";
import type { ServiceBroker } from "moleculer";
import { isConnected } from "./listeners";

/**
 * `/live` and `/ready` of this one node, for container health checks; on a port of its own, which nothing publishes.
 * Ready is a node that is started, connected and not about to stop.
 */
export async function serveOps(broker: ServiceBroker, port: number, host: string): Promise<Server> {
  const server = createServer((req, res) => {
    const isReady = broker.started && isConnected(broker);
    const status = req.url === "/live" ? 200 : req.url === "/ready" ? (isReady ? 200 : 503) : 404;
    res.writeHead(status, { "Content-Type": "application/json", Connection: "close" });
    res.end(JSON.stringify({ status: status === 200 ? "ok" : "unavailable" }));
  });
  server.listen(port, host);
  await once(server, "listening");
  server.unref();
  return server;
}
