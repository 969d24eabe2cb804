import { Type } from "@sinclair/typebox";
import type { Context, ServiceBroker } from "moleculer";
import type { Meta } from "../../../broker/contract";
import { matches } from "../../../broker/validator";
import { nodes, type Node } from "../../../contracts/api";
import { nullable } from "../../../contracts/contract";
import { ok } from "../routing/responses";
import { refuseQuery } from "../routing/input";
import { TAKES_NOTHING, type Routes } from "../routing/route";

/** Time that a node has to report its state. */
const NODE_RESPONSE_TIMEOUT_MS = 1_000;

/** The fields used from the result of Moleculer's `$node.health`. */
const Health = Type.Object({
  cpu: Type.Object({ utilization: nullable(Type.Number()) }),
  process: Type.Object({ uptime: Type.Number(), memory: Type.Object({ rss: Type.Number() }) }),
});

/** Each node is called individually, so that one that hangs does not hide the others. */
async function healthOf(ctx: Context<unknown, Meta>, nodeID: string): Promise<Pick<Node, "uptime" | "cpu" | "memory">> {
  const health: unknown = await ctx
    .call("$node.health", {}, { nodeID, timeout: NODE_RESPONSE_TIMEOUT_MS, retries: 0 })
    .catch(() => undefined);
  if (!matches(Health, health)) return { uptime: null, cpu: null, memory: null };
  const { cpu, process } = health;
  return { uptime: Math.floor(process.uptime), cpu: cpu.utilization, memory: process.memory.rss };
}

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
      return async (ctx) => {
        const services = broker.registry.getServiceList({ skipInternal: true, onlyAvailable: true });
        const items = broker.registry.getNodeList({ onlyAvailable: true }).map(async ({ id, metadata }): Promise<Node> => {
          const version: unknown = metadata?.["version"];
          return {
            id,
            services: services.flatMap(({ name, nodeID }) => (nodeID === id ? name : [])).sort(),
            version: typeof version === "string" ? version : null,
            ...(await healthOf(ctx, id)),
          };
        });
        return ok({ items: await Promise.all(items) });
      };
    },
  },
});
