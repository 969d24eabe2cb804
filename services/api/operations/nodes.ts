import { Type } from "@sinclair/typebox";
import type { ServiceBroker } from "moleculer";
import { matches } from "../../../broker/validator";
import type { Node } from "../../../contracts/api";
import { nullable } from "../../../contracts/contract";

/** The fields used from the result of Moleculer's `$node.health`. */
const Health = Type.Object({
  cpu: Type.Object({ utilization: nullable(Type.Number()) }),
  process: Type.Object({ uptime: Type.Number(), memory: Type.Object({ rss: Type.Number() }) }),
});

/** Each node is called individually, so that one that hangs does not hide the others. */
async function healthOf(broker: ServiceBroker, nodeID: string, timeout: number): Promise<Pick<Node, "uptime" | "cpu" | "memory">> {
  const health: unknown = await broker.call("$node.health", {}, { nodeID, timeout, retries: 0 }).catch(() => undefined);
  if (!matches(Health, health)) return { uptime: null, cpu: null, memory: null };
  const { cpu, process } = health;
  return { uptime: Math.floor(process.uptime), cpu: cpu.utilization, memory: process.memory.rss };
}

/** The nodes that this one can reach, with the services that they host. */
export function nodesOf(broker: ServiceBroker, timeoutMs: number): Promise<Node[]> {
  const services = broker.registry.getServiceList({ skipInternal: true, onlyAvailable: true });
  const nodes = broker.registry.getNodeList({ onlyAvailable: true }).map(async ({ id, metadata }): Promise<Node> => {
    const version: unknown = metadata?.["version"];
    return {
      id,
      services: services.flatMap(({ name, nodeID }) => (nodeID === id ? name : [])).sort(),
      version: typeof version === "string" ? version : null,
      ...(await healthOf(broker, id, timeoutMs)),
    };
  });
  return Promise.all(nodes);
}
