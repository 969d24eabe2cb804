import type { Middleware, Service } from "moleculer";

/** A service that must finish its clients' requests before any other service of its node stops. */
interface Drainable extends Service {
  drain(): Promise<void>;
}

const isDrainable = (service: Service): service is Drainable => "drain" in service && typeof service.drain === "function";

/** Moleculer stops the services of a node in parallel: a database would close under the gateway's last requests. */
export const drainFirst: Middleware = {
  name: "DrainFirst",
  async stopping(broker) {
    await Promise.all(broker.services.filter(isDrainable).map((service) => service.drain()));
  },
};
