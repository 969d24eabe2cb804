import type { ServiceBroker } from "moleculer";
import type { Routes } from "../routing/route";
import { docsRoutes } from "../openapi/docs-page";
import { healthRoutes } from "./health";
import { nodesRoute } from "./nodes";
import { OPERATIONS_ROUTES } from "./operations";
import { problemRoutes } from "./problems";
import { ROUTES } from "./shop";
import { metadataRoutes } from "./token";

/** Where clients find the gateway. */
export interface Site {
  /** The path under which a proxy serves the shop; empty if there is none. */
  basePath: string;
  /** The origin of the shop, if it is known. */
  publicUrl: string | undefined;
}

/** Every route that is reachable from outside, with the documentation of all. */
export function allRoutes(broker: ServiceBroker, { basePath, publicUrl }: Site): Routes {
  const shop = {
    ...ROUTES,
    ...metadataRoutes(publicUrl === undefined ? undefined : publicUrl + basePath),
    ...healthRoutes(broker),
    ...nodesRoute(broker),
    ...OPERATIONS_ROUTES,
    ...problemRoutes(basePath),
  };
  return { ...shop, ...docsRoutes(shop, basePath) };
}
