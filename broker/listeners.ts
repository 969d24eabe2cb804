import type { ServiceBroker } from "moleculer";

/** Whether this node can reach others now; always, where there are none. */
export function isConnected(broker: ServiceBroker): boolean {
  return !broker.transit || broker.transit.tx.connected;
}

/** Whether somebody who can be reached now listens to an event. */
export function canDeliver(broker: ServiceBroker, event: string): boolean {
  const listeners = broker.registry.events.getAllEndpoints(event);
  return listeners.some((listener) => listener.local || isConnected(broker));
}
