import type { Middleware, Service, ServiceSchema } from "moleculer";

/** A list of what may be asked, so that an action which a later Moleculer adds is off as well. */
const nodeService = (): ServiceSchema => ({
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
});

/**
 * Replaces Moleculer's own `$node` service, which any node can call: `$node.options` returns the broker's options with the
 * transporter's URL, `$node.services` every service's settings, `$node.health` the command line. The REPL's commands
 * (`nodes`, `services`, `actions`, `events`) read the registry and need none of them. To be used with `internalServices: false`.
 */
export const ownInternals: Middleware = {
  name: "OwnInternals",
  created(broker) {
    broker.createService(nodeService());
  },
};
