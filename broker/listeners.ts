import type { Context, ServiceBroker } from "moleculer";

/** Whether this node can reach others now; always, where there are none. */
export function isConnected(broker: ServiceBroker): boolean {
  return !broker.transit || broker.transit.tx.connected;
}

/** Whether somebody who can be reached now listens to an event. */
export function canDeliver(broker: ServiceBroker, event: string): boolean {
  const listeners = broker.registry.events.getAllEndpoints(event);
  return listeners.some((listener) => listener.local || isConnected(broker));
}

/** Whether the node that has called an action is still there, and can be told the result. */
export function isCallerThere({ broker, nodeID }: Context<unknown, object>): boolean {
  if (nodeID === null || nodeID === broker.nodeID) return true;
  const node = broker.registry.nodes.get(nodeID) as { available: boolean } | undefined; // declared as if it were always there
  return node?.available ?? false;
}
