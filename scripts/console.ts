import type { CallingOptions, ServiceBroker } from "moleculer";
import { asSystem } from "../broker/contract";

type Call = (action: string, params?: unknown, options?: CallingOptions) => Promise<unknown>;

/**
 * Opens Moleculer's console. Calls from it without `user` in their meta are made as the system, with the rights of an admin. The node's
 * other calls, such as a gateway's, are unchanged.
 */
export function openConsole(broker: ServiceBroker): void {
  broker.repl.call(consoleOf(broker));
}

/** The broker as the console sees it: calls without a user are made as the system. */
export function consoleOf(broker: ServiceBroker): ServiceBroker {
  const call: Call = (action, params, options = {}) => {
    const meta: Record<string, unknown> = options.meta ?? {};
    return broker.call(action, params, "user" in meta ? options : { ...options, meta: { ...meta, ...asSystem().meta } });
  };
  return new Proxy(broker, {
    get(target, name): unknown {
      if (name === "call") return call;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? (value.bind(target) as unknown) : value; // bound to the broker, so its own calls bypass this proxy
    },
  });
}
