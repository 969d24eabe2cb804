import { randomBytes } from "node:crypto";
import type { AddressInfo, Server } from "node:net";
import { ServiceBroker, type BrokerOptions, type Middleware, type ServiceSchema } from "moleculer";
import type { TSchema } from "@sinclair/typebox";
import { check } from "../broker/validator";
import { loadConfig, SERVICES, type Config, type ServiceName } from "../config";
import { brokerOptions } from "../moleculer.config";
import api, { type GatewayLimits } from "../services/api/api.service";
import orders from "../services/orders/orders.service";
import products from "../services/products/products.service";
import users from "../services/users/users.service";
import { ADMIN } from "./admin";
import { Client } from "./client";
import { createDatabases, dropDatabases, variablesOf, type TestDatabases } from "./databases";

type Factory = (broker: ServiceBroker, config: Config, limits: GatewayLimits) => unknown;
const FACTORIES: Readonly<Record<ServiceName, Factory>> = { api, users, products, orders };

/** All clients of a test share one IP address, which the rate limits would block. */
export const NO_LIMITS = {
  RATE_LIMIT_AUTH: "0",
  RATE_LIMIT_ACCOUNT: "0",
  RATE_LIMIT_ADDRESS: "0",
  RATE_LIMIT_REGISTER: "0",
  RATE_LIMIT_PASSWORD: "0",
};

/** Fails a call whose result breaks the action's contract. Tests check every result. */
const checkedResults: Middleware = {
  name: "CheckedResults",
  localAction: (next, action) =>
    async function (ctx) {
      const result: unknown = await next.call(this, ctx);
      const wrong = "result" in action ? check(action.result as TSchema, result) : [];
      if (wrong.length > 0) throw new Error(`${action.name ?? ""} breaks its contract: ${JSON.stringify(wrong)}`);
      return result;
    },
};

export interface Shop {
  /** The base URL of the first gateway, with BASE_PATH. */
  readonly url: string;
  readonly nodes: readonly ServiceBroker[];
  readonly databases: TestDatabases;
  readonly config: Config;
  /** The first node that hosts a service. */
  node(service: ServiceName): ServiceBroker;
  client(): Client;
  stop(): Promise<void>;
}

export interface ShopOptions {
  /** The services of each node; by default, one node with all of them. Several nodes share the Fake transporter. */
  nodes?: readonly (readonly ServiceName[])[];
  env?: Readonly<Record<string, string>>;
  broker?: Partial<BrokerOptions>;
  /** Overrides of every gateway's default limits. */
  limits?: GatewayLimits;
  /** Whether a call fails if the action's result breaks its contract; true by default. */
  checksResults?: boolean;
}

export const uniqueNamespace = (): string => `test-${randomBytes(6).toString("hex")}`;

/** Starts the whole shop, or a part of it, in this process, with its own databases, namespace and port. */
export async function startShop({
  nodes: groups = [SERVICES],
  env = {},
  broker: over = {},
  limits = {},
  checksResults = true,
}: ShopOptions = {}): Promise<Shop> {
  const databases = await createDatabases();
  const config: Config = {
    ...loadConfig({
      PORT: "0",
      BCRYPT_COST: "4",
      NAMESPACE: uniqueNamespace(),
      LOG_LEVEL: "fatal",
      OUTBOX_RETRY_MS: "200",
      OUTBOX_RETRY_MAX_MS: "1000",
      ADMIN_EMAIL: ADMIN.email,
      ADMIN_PASSWORD: ADMIN.password,
      ...NO_LIMITS,
      ...env,
    }),
    databases: loadConfig(variablesOf(databases)).databases,
  };
  const middlewares = [...(checksResults ? [checkedResults] : []), ...(over.middlewares ?? [])];
  const options: Partial<BrokerOptions> = { ...(groups.length > 1 && { transporter: "Fake" }), ...over, middlewares };
  const nodes = groups.map((services, i) => startable(config, services, i, options, limits));
  const node = (service: ServiceName): ServiceBroker => {
    const found = nodes.find((candidate) => candidate.services.some(({ name }) => name === service));
    if (found === undefined) throw new Error(`no node hosts ${service}`);
    return found;
  };
  await Promise.all(nodes.map((broker) => broker.start()));
  await Promise.all(nodes.map((broker) => broker.waitForServices(groups.flat(), 20_000, 5)));
  const url = groups.flat().includes("api") ? urlOf(node("api")) + config.basePath : "";
  return {
    url,
    nodes,
    databases,
    config,
    node,
    client: () => new Client(url),
    stop: async () => {
      await Promise.all(nodes.map((broker) => broker.stop()));
      await dropDatabases(databases);
    },
  };
}

function startable(
  config: Config,
  services: readonly ServiceName[],
  i: number,
  over: Partial<BrokerOptions>,
  limits: GatewayLimits,
): ServiceBroker {
  const options = brokerOptions({ ...config, nodeId: `${config.namespace}-${i}` });
  const broker = new ServiceBroker({
    ...options,
    transit: { serviceChangedDebounceTime: 0 } as BrokerOptions["transit"] & object,
    ...over,
    middlewares: [...(options.middlewares ?? []), ...(over.middlewares ?? [])],
  });
  for (const name of services) broker.createService(FACTORIES[name](broker, config, limits) as ServiceSchema);
  return broker;
}

/** The base URL of a node's gateway, without BASE_PATH. */
export function urlOf(broker: ServiceBroker): string {
  const { server } = broker.getLocalService("api") as unknown as { server: Server };
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
