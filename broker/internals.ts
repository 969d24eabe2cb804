import type { Middleware, Service, ServiceSchema } from "moleculer";

/** An allow-list, so that actions added by a later Moleculer are disabled as well. */
const NODE_SERVICE: ServiceSchema = {
  name: "$node",
  actions: {
    health: {
      visibility: "public",
      handler(this: Service) {
        const { cpu, process } = this.broker.getHealthStatus();
        return { cpu: { utilization: cpu.utilization }, process: { uptime: process.uptime, memory: { rss: process.memory.rss } } };
      },
    },
  },
};

/**
 * Replaces Moleculer's own `$node` service, which any node can call and which exposes secrets: `$node.options` returns the broker's options
 * with the transporter's URL, `$node.services` every service's settings, `$node.health` the command line. The REPL's commands (`nodes`,
 * `services`, `actions`, `events`) read the registry and need none of these. To be used with `internalServices: false`.
 */
export const minimalNodeService: Middleware = {
  name: "MinimalNodeService",
  created(broker) {
    broker.createService(NODE_SERVICE);
  },
};
