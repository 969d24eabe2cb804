import { createServer, type Server } from "node:http";
import { once } from "node:events";
import type { ServiceBroker } from "moleculer";
import { canReachOthers } from "./listeners";
import { collectMetrics, Metrics } from "./metrics";

/**
 * Serves `/live`, `/ready` and `/metrics` of this node, for container health checks and Prometheus, on a separate port that is not
 * published. A node is ready if it has started, can reach the others and is not stopping. To be called before services are created.
 */
export async function serveOps(broker: ServiceBroker, port: number, host: string): Promise<Server> {
  const metrics = collectMetrics(broker);
  const server = createServer((req, res) => {
    const respond = (status: number, type: string, body: string): void => {
      res.writeHead(status, { "Content-Type": type, Connection: "close" }).end(body);
    };
    if (req.url === "/metrics") {
      metrics.page().then(
        (page) => respond(200, Metrics.CONTENT_TYPE, page),
        () => respond(500, "text/plain", "the metrics are unavailable\n"),
      );
      return;
    }
    const isReady = broker.started && canReachOthers(broker);
    const status = req.url === "/live" ? 200 : req.url === "/ready" ? (isReady ? 200 : 503) : 404;
    respond(status, "application/json", JSON.stringify({ status: status === 200 ? "ok" : "unavailable" }));
  });
  server.listen(port, host);
  await once(server, "listening");
  server.unref();
  return server;
}
