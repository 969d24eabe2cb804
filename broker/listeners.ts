import type { Context, ServiceBroker } from "moleculer";
import { AmqpTransporter } from "./amqp.transporter";

/** Whether this node is connected to the other nodes; always true without a transporter. */
export function isConnected(broker: ServiceBroker): boolean {
  return !broker.transit || broker.transit.tx.connected;
}

/** Whether RabbitMQ accepts no messages, for lack of memory or disk space. */
export function isBlocked({ transit }: ServiceBroker): boolean {
  return transit?.tx instanceof AmqpTransporter && transit.tx.isBlocked;
}

/** Whether this node can reach the other nodes now; always true without a transporter. */
export const canReachOthers = (broker: ServiceBroker): boolean => isConnected(broker) && !isBlocked(broker);

/** Whether an event has a listener that can be reached now. @param service the only one whose listeners count */
export function canDeliver(broker: ServiceBroker, event: string, service?: string): boolean {
  const listeners = broker.registry.events.getAllEndpoints(event);
  return listeners.some(
    (listener) => (service === undefined || listener.service.name === service) && (listener.local || canReachOthers(broker)),
  );
}

/** Whether any available node hosts an action. Calling an action that none hosts makes Moleculer log a warning. */
export const isHosted = ({ registry }: ServiceBroker, action: string): boolean =>
  registry.actions.list({ onlyAvailable: true }).some(({ name }) => name === action);

/** The available nodes that host an action. */
export const hostsOf = ({ registry }: ServiceBroker, action: string): string[] =>
  registry.actions
    .list({ onlyAvailable: true, withEndpoints: true })
    .flatMap(({ name, endpoints = [] }) => (name === action ? endpoints : []))
    .flatMap(({ nodeID, available }) => (available ? nodeID : []));

/** Whether the node that called an action is still available to receive the result. */
export function isCallerThere({ broker, nodeID }: Context<unknown, object>): boolean {
  if (nodeID === null || nodeID === broker.nodeID) return true;
  const node = broker.registry.nodes.get(nodeID) as { available: boolean } | undefined; // declared as if it always existed
  return node?.available ?? false;
}
