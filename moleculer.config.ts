import { Errors, type BrokerOptions } from "moleculer";
import { amqpTransporter } from "./broker/amqp.transporter";
import { drainFirst } from "./broker/drain";
import { ownInternals } from "./broker/internals";
import { logger, logUnexpected } from "./broker/logger";
import { requests } from "./broker/request";
import { retries } from "./broker/retry";
import { ContractValidator } from "./broker/validator";
import { loadConfig, type Config } from "./config";
import { version } from "./package.json";

const TIMEOUT = 504;

/** The options of every node, whichever services it hosts. */
export function brokerOptions(config: Config): BrokerOptions {
  const { retryPolicy, middleware: retrying } = retries();
  return {
    namespace: config.namespace,
    nodeID: config.nodeId,
    metadata: { version }, // told to the other nodes: while a release is brought out they differ
    logger: logger(config.log.level, config.log.format, config.transporter !== undefined),
    transporter: config.transporter === undefined ? null : amqpTransporter(...config.transporter),
    validator: new ContractValidator({}),
    middlewares: [requests, retrying, drainFirst, ownInternals],
    internalServices: false, // ownInternals says what takes their place
    errorHandler: logUnexpected,

    // Each contract has its own; this is for the few calls without one.
    requestTimeout: 5_000,
    retryPolicy,
    // Requests are acknowledged on receipt: this is their only back-pressure.
    bulkhead: { enabled: true, concurrency: 64, maxQueueSize: 1_024 },
    // Refusals and a database that is down are answers. A node that gives none is left alone for a while.
    circuitBreaker: {
      enabled: true,
      threshold: 0.5,
      minRequestCount: 20,
      windowTime: 10,
      halfOpenTime: 2_000,
      check: (error) => error instanceof Errors.MoleculerError && error.code === TIMEOUT,
    },
    // A killed node is noticed by its missing heartbeat alone.
    heartbeatInterval: 2,
    heartbeatTimeout: 8,
    registry: { preferLocal: true, stopDelay: config.transporter === undefined ? 0 : 500 },
    // The others hear at once what a node hosts: by the default of 1 s it would say that it is ready before they know.
    transit: { serviceChangedDebounceTime: 0 } as NonNullable<BrokerOptions["transit"]>, // not in its declaration
    tracking: { enabled: true, shutdownTimeout: 10_000 },
    // scripts/start handles the signals: it has a database to stop after the broker.
    skipProcessEventRegistration: true,
  };
}

/** For moleculer-runner. It writes each variable over the option of its name: TRANSPORTER's text would take the transporter's place. */
export default (): BrokerOptions => {
  const options = brokerOptions(loadConfig());
  const { transporter } = options;
  return Object.defineProperty(options, "transporter", { enumerable: true, get: () => transporter, set: () => undefined });
};
