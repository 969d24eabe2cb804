import { ServiceBroker, type BrokerOptions } from "moleculer";
import { amqpTransporter } from "./broker/amqp.transporter";
import { drainFirst } from "./broker/drain";
import { minimalNodeService } from "./broker/internals";
import { logger, logUnexpected } from "./broker/logger";
import { isWholeTimeout, requests } from "./broker/request";
import { retries } from "./broker/retry";
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

    // Only for the few calls without a contract: each contract has its own timeout.
    requestTimeout: 5_000,
    retryPolicy,
    // The only back-pressure for requests, which are acknowledged on receipt.
    bulkhead: { enabled: true, concurrency: 64, maxQueueSize: 1_024 },
    // Only timeouts count: a refusal or an unavailable database is a response. A node that does not respond gets no calls for a while.
    circuitBreaker: {
      enabled: true,
      threshold: 0.5,
      minRequestCount: 20,
      windowTime: 10,
      halfOpenTime: 2_000,
      check: isWholeTimeout,
    },
    // For a frozen or disconnected node. A killed one is detected sooner, when RabbitMQ returns the next message sent to it.
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

type Options = Record<string, unknown>;
const isPlain = (value: unknown): value is Options =>
  typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype;

/** A copy, completed with defaults, whose values can't be replaced, at any depth: assignments have no effect. */
function locked(options: Options, defaults: Options): Options {
  const valueOf = (name: string): unknown => {
    const [value, usual] = [options[name] ?? defaults[name], defaults[name]];
    return isPlain(value) ? locked(value, isPlain(usual) ? usual : {}) : value;
  };
  const names = [...new Set([...Object.keys(options), ...Object.keys(defaults)])];
  const entries = names.map((name) => [name, valueOf(name)] as const);
  return Object.defineProperties(
    {},
    Object.fromEntries(entries.map(([name, value]) => [name, { enumerable: true, get: () => value, set: () => undefined }])),
  );
}

/**
 * For moleculer-runner, which overwrites each option, also those within others, with the environment variable of its name: TRANSPORTER would
 * replace our transporter by Moleculer's own. config.ts is the only reader of the environment, so the options can't be overwritten, apart from
 * `logger` (`--silent`) and `hotReload` (`--hot`).
 * @throws Error if SERVICES selects a part of the shop: the runner would look for files of these names, and start a node without services
 */
export default (): BrokerOptions => {
  const config = loadConfig();
  if (!config.hostsAll)
    throw new Error(
      "moleculer-runner reads SERVICES as names of files: unset it and name the service files as arguments, or use npm start",
    );
  const { logger, ...options } = brokerOptions(config);
  const { logger: _logger, hotReload, ...defaults } = ServiceBroker.defaultOptions;
  // Nothing else handles signals.
  const own = locked({ ...options, skipProcessEventRegistration: false }, { ...defaults });
  return Object.defineProperties({ logger, hotReload } as BrokerOptions, Object.getOwnPropertyDescriptors(own));
};
