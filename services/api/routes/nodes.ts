import type { ServiceBroker } from "moleculer";
import { nodes } from "../../../contracts/api";
import { nodesOf } from "../operations/nodes";
import { ok } from "../routing/responses";
import { refuseQuery } from "../routing/input";
import { TAKES_NOTHING, type Routes } from "../routing/route";

/** Time that a node has to report its state. */
const NODE_RESPONSE_TIMEOUT_MS = 1_000;

/** The reachable nodes, with the services that they host. */
export const nodesRoute = (broker: ServiceBroker): Routes => ({
  "GET /admin/nodes": {
    ...TAKES_NOTHING,
    auth: "admin",
    lane: "operations",
    contract: nodes,
    summary: "The nodes that this gateway can reach, with their services and state",
    statuses: [200],
    read: (input) => {
      refuseQuery(input);
      return async () => ok({ items: await nodesOf(broker, NODE_RESPONSE_TIMEOUT_MS) });
    },
  },
});
