import { Errors, type BrokerOptions } from "moleculer";
import { amqpTransporter } from "./broker/amqp.transporter";
import { drainFirst } from "./broker/drain";
import { minimalNodeService } from "./broker/internals";
import { logger, logUnexpected } from "./broker/logger";
import { requests } from "./broker/request";
import { retries, TIMEOUT_STATUS } from "./broker/retry";
import { ContractValidator } from "./broker/validator";
import { loadConfig, type Config } from "./config";
import { version } from "./package.json";

/** The broker options of every node, whichever services it hosts. */
export function brokerOptions(config: Config): BrokerOptions {
  const { retryPolicy, middleware: retrying } = retries();
  return {
    namespace: config.namespace,
    nodeID: config.nodeId,
    metadata: { version }, // published to other nodes: during a rollout, versions differ
    logger: logger(config.log.level, config.log.format, config.transporter !== undefined),
    transporter: config.transporter === undefined ? null : amqpTransporter(...config.transporter),
    validator: new ContractValidator({}),
    middlewares: [requests, retrying, drainFirst, minimalNodeService],
    internalServices: false, // replaced by minimalNodeService
    errorHandler: logUnexpected,

    // Only for the few calls without a contract: each contract has its own time-out.
    requestTimeout: 5_000,
    retryPolicy,
    // The only back-pressure for requests, which are acknowledged on receipt.
    bulkhead: { enabled: true, concurrency: 64, maxQueueSize: 1_024 },
    // Only time-outs count: a refusal or an unavailable database is a response. A node that does not respond gets no calls for a while.
    circuitBreaker: {
      enabled: true,
      threshold: 0.5,
      minRequestCount: 20,
      windowTime: 10,
      halfOpenTime: 2_000,
      check: (error) => error instanceof Errors.MoleculerError && error.code === TIMEOUT_STATUS,
    },
    // A killed node is detected only by missing heartbeats.
    heartbeatInterval: 2,
    heartbeatTimeout: 8,
    registry: { preferLocal: true, stopDelay: config.transporter === undefined ? 0 : 500 },
    // Publish a node's services at once: with the default of 1 s, it would report readiness before other nodes know them.
    transit: { serviceChangedDebounceTime: 0 } as NonNullable<BrokerOptions["transit"]>, // missing in the type
    tracking: { enabled: true, shutdownTimeout: 10_000 },
    // scripts/start handles signals, since it has to stop a database after the broker.
    skipProcessEventRegistration: true,
  };
}

/**
 * For moleculer-runner, which overwrites each option with the environment variable of its name: TRANSPORTER would replace our transporter by
 * Moleculer's own. config.ts is the only reader of the environment, so the options can't be overwritten, apart from `logger` (`--silent`).
 */
export default (): BrokerOptions => {
  const { logger, ...options } = brokerOptions(loadConfig());
  const own = { ...options, skipProcessEventRegistration: false }; // nothing else handles signals
  return Object.defineProperties(
    { logger } as BrokerOptions,
    Object.fromEntries(Object.entries(own).map(([name, value]) => [name, { enumerable: true, get: () => value, set: () => undefined }])),
  );
};
