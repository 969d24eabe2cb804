import type { CallingOptions, ServiceBroker } from "moleculer";
import { asSystem } from "../broker/contract";
import { paramsByName } from "../broker/validator";

type Call = (action: string, params?: unknown, options?: CallingOptions) => Promise<unknown>;

/**
 * Opens Moleculer's console. Calls from it without `user` in their meta are made as the system, with the rights of an admin. The node's
 * other calls, such as a gateway's, are unchanged.
 */
export function openConsole(broker: ServiceBroker): void {
  broker.repl.call(consoleOf(broker));
}

/** The broker as the console sees it: calls without a user are made as the system, and lists have params by name. */
export function consoleOf(broker: ServiceBroker): ServiceBroker {
  const call: Call = (action, params, options = {}) => {
    const meta: Record<string, unknown> = options.meta ?? {};
    return broker.call(action, params, "user" in meta ? options : { ...options, meta: { ...meta, ...asSystem().meta } });
  };
  const registry = withParamNames(broker.registry);
  return new Proxy(broker, {
    get(target, name): unknown {
      if (name === "call") return call;
      if (name === "registry") return registry;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? (value.bind(target) as unknown) : value; // bound to the broker, so its own calls bypass this proxy
    },
  });
}

type Registry = ServiceBroker["registry"];

/**
 * The registry, whose lists have the params of actions and events by name. The console's `actions` and `events` print the keys of `params`,
 * which for a JSON Schema are its keywords.
 */
function withParamNames(registry: Registry): unknown {
  const lists = {
    getActionList: (options: Parameters<Registry["getActionList"]>[0]) =>
      registry.getActionList(options).map((item) => ({ ...item, ...(item.action && { action: named(item.action) }) })),
    getEventList: (options: Parameters<Registry["getEventList"]>[0]) =>
      registry.getEventList(options).map((item) => ({ ...item, ...(item.event && { event: named(item.event) }) })),
  };
  return Object.setPrototypeOf(lists, registry) as unknown;
}

const named = (definition: object): object =>
  "params" in definition && typeof definition.params === "object" && definition.params !== null
    ? { ...definition, params: paramsByName(definition.params) }
    : definition;
