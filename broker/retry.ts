import { Errors, type BrokerOptions, type Middleware, type ServiceBroker } from "moleculer";
import { TIMEOUT_STATUS } from "./errors";
import { isBlocked } from "./listeners";

/** The node that did not respond. A timeout error is created on the caller's side, so its `data` are Moleculer's own. */
function silentNode({ data }: Errors.MoleculerError): string | undefined {
  const from: unknown = data;
  return typeof from === "object" && from !== null && "nodeID" in from && typeof from.nodeID === "string" ? from.nodeID : undefined;
}

/**
 * Retries only calls whose contract is idempotent, and only if the request did not reach its service or the response did not reach the
 * caller. A call that timed out is retried only if its node was lost meanwhile: a node that is merely slow would get the same work twice
 * while it is overloaded. Nothing is retried while RabbitMQ accepts no messages, since that lasts longer than a call.
 */
export function retries(): { retryPolicy: NonNullable<BrokerOptions["retryPolicy"]>; middleware: Middleware } {
  let broker: ServiceBroker | undefined;
  const isFutile = (): boolean => broker !== undefined && isBlocked(broker);
  const isLost = (nodeID: string | undefined): boolean =>
    nodeID !== undefined && broker !== undefined && !broker.registry.getNodeList({ onlyAvailable: true }).some(({ id }) => id === nodeID);
  return {
    retryPolicy: {
      enabled: false, // each action has its own policy
      retries: 0,
      delay: 50,
      maxDelay: 500,
      factor: 2,
      check: (error) =>
        error instanceof Errors.MoleculerError &&
        error.retryable &&
        !isFutile() &&
        (error.code !== TIMEOUT_STATUS || isLost(silentNode(error))),
    },
    middleware: {
      name: "Retries",
      created: (created) => {
        broker = created;
      },
    },
  };
}
