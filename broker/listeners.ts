import type { Context, ServiceBroker } from "moleculer";
import { AmqpTransporter } from "./amqp.transporter";

/** Whether this node has its connection to the others; always, where there are none. */
export function isConnected(broker: ServiceBroker): boolean {
  return !broker.transit || broker.transit.tx.connected;
}

/** Whether RabbitMQ takes no messages, since it lacks memory or disk space. */
export function isBlocked({ transit }: ServiceBroker): boolean {
  return transit?.tx instanceof AmqpTransporter && transit.tx.isBlocked;
}

/** Whether this node can reach others now; always, where there are none. */
export const canReachOthers = (broker: ServiceBroker): boolean => isConnected(broker) && !isBlocked(broker);

/** Whether somebody who can be reached now listens to an event. */
export function canDeliver(broker: ServiceBroker, event: string): boolean {
  const listeners = broker.registry.events.getAllEndpoints(event);
  return listeners.some((listener) => listener.local || canReachOthers(broker));
}

/** Whether any node that can be reached hosts an action. Calling one that none hosts makes Moleculer log a warning. */
export const isHosted = ({ registry }: ServiceBroker, action: string): boolean =>
  registry.actions.list({ onlyAvailable: true }).some(({ name }) => name === action);

/** Whether the node that has called an action is still there, and can be told the result. */
export function isCallerThere({ broker, nodeID }: Context<unknown, object>): boolean {
  if (nodeID === null || nodeID === broker.nodeID) return true;
  const node = broker.registry.nodes.get(nodeID) as { available: boolean } | undefined; // declared as if it were always there
  return node?.available ?? false;
}
