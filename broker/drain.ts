import type { Middleware, Service } from "moleculer";

/** A service that must finish its clients' requests before any other service of its node stops. */
interface Drainable extends Service {
  drain(): Promise<void>;
}

const isDrainable = (service: Service): service is Drainable => "drain" in service && typeof service.drain === "function";

/**
 * Moleculer stops the services of a node in parallel: a database would close under the gateway's last requests. Its own middlewares are added
 * after ours, and the last one's hook is called first: its ContextTracker would wait for remote calls, of which a gateway that still serves
 * always has some. So this hook is added when all the others have been.
 */
export const drainFirst: Middleware = {
  name: "DrainFirst",
  created(broker) {
    broker.middlewares.add({
      name: "Drain",
      async stopping() {
        await Promise.all(broker.services.filter(isDrainable).map((service) => service.drain()));
      },
    });
  },
};
