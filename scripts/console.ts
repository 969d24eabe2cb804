import type { CallingOptions, ServiceBroker } from "moleculer";
import { asSystem } from "../broker/contract";

type Call = (action: string, params?: unknown, options?: CallingOptions) => Promise<unknown>;

/**
 * Opens Moleculer's console. What is called in it in nobody's name (without `user` in the meta) the shop itself does: it may do what admins
 * may. The node's other calls, a gateway's among them, are left as they are.
 */
export function openConsole(broker: ServiceBroker): void {
  broker.repl.call(consoleOf(broker));
}

/** The broker as a console sees it. */
export function consoleOf(broker: ServiceBroker): ServiceBroker {
  const call: Call = (action, params, options = {}) => {
    const meta: Record<string, unknown> = options.meta ?? {};
    return broker.call(action, params, "user" in meta ? options : { ...options, meta: { ...meta, ...asSystem().meta } });
  };
  return new Proxy(broker, {
    get(target, name): unknown {
      if (name === "call") return call;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? (value.bind(target) as unknown) : value; // what the broker does itself is no console's
    },
  });
}
