import { Errors, type BrokerOptions, type Middleware, type ServiceBroker } from "moleculer";
import { isBlocked } from "./listeners";

const TIMEOUT_STATUS = 504;

/** The node that did not reply. A time-out has been made on this side: its `data` are Moleculer's own. */
function silentNode({ data }: Errors.MoleculerError): string | undefined {
  const from: unknown = data;
  return typeof from === "object" && from !== null && "nodeID" in from && typeof from.nodeID === "string" ? from.nodeID : undefined;
}

/**
 * Only what a contract calls repeatable is retried, and only when the call did not reach its service or the reply did not reach us.
 * A call that timed out is retried only where its node was lost meanwhile: one that is merely slow would have the same work
 * twice, at a time when it has too much already. Nothing is retried while RabbitMQ takes no messages: that lasts for longer than a call.
 */
export function retries(): { retryPolicy: NonNullable<BrokerOptions["retryPolicy"]>; middleware: Middleware } {
  let broker: ServiceBroker | undefined;
  const isFutile = (): boolean => broker !== undefined && isBlocked(broker);
  const isLost = (nodeID: string | undefined): boolean =>
    nodeID !== undefined && broker !== undefined && !broker.registry.getNodeList({ onlyAvailable: true }).some(({ id }) => id === nodeID);
  return {
    retryPolicy: {
      enabled: false, // each action says for itself
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
