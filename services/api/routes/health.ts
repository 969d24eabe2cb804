import type { Context, ServiceBroker } from "moleculer";
import { call, type Meta } from "../../../broker/contract";
import { errorType } from "../../../broker/errors";
import { isBlocked, isConnected, isHosted } from "../../../broker/listeners";
import type { DatabaseName } from "../../../config";
import { health, live, ready, type Check } from "../../../contracts/api";
import type { ActionContract } from "../../../contracts/contract";
import { ordersHealth } from "../../../contracts/orders";
import { productsHealth } from "../../../contracts/products";
import { usersHealth } from "../../../contracts/users";
import { TAKES_NOTHING, type HttpResponse, type Routes } from "../routing/route";

const HEALTH: Readonly<Record<DatabaseName, ActionContract>> = {
  users: usersHealth,
  products: productsHealth,
  orders: ordersHealth,
};

function report(checks: Check[]): HttpResponse {
  const ok = checks.every((check) => check.ok);
  return {
    status: ok ? 200 : 503,
    body: { status: ok ? "ok" : "unavailable", checks },
    headers: { "Cache-Control": "no-store" },
  };
}

/** Whether this gateway can serve: it is not starting or stopping, and it can reach other nodes. */
function readiness(broker: ServiceBroker): Check[] {
  return [
    checked("gateway", broker.started ? undefined : "starting or stopping"),
    checked("transporter", !isConnected(broker) ? "not connected" : isBlocked(broker) ? "RabbitMQ accepts no messages" : undefined),
  ];
}

/** @param detail what is wrong; undefined if the check passed */
const checked = (name: string, detail: string | undefined): Check => ({
  name,
  ok: detail === undefined,
  ...(detail !== undefined && { detail }),
});

async function checkService(ctx: Context<unknown, Meta>, name: string, contract: ActionContract): Promise<Check[]> {
  const unavailable = [checked(name, "does not respond"), checked(`${name} database`, "unknown")];
  if (!isHosted(ctx.broker, contract.name)) return unavailable;
  try {
    await call(ctx, contract, {}, { retries: 0 });
    return [checked(name, undefined), checked(`${name} database`, undefined)];
  } catch (error) {
    // With SERVICE_UNAVAILABLE the service reports its database as unavailable or read-only. Any other error: the service is unavailable.
    if (errorType(error) !== "SERVICE_UNAVAILABLE" || !(error instanceof Error)) return unavailable;
    return [checked(name, undefined), checked(`${name} database`, error.message)];
  }
}

/** For load balancers and people; the only error responses (400 and above), besides those to OAuth forms, that are not problem+json. */
export const healthRoutes = (broker: ServiceBroker): Routes => ({
  "GET /health/live": {
    ...TAKES_NOTHING,
    auth: "public",
    contract: live,
    summary: "Whether the process runs",
    statuses: [200],
    read: () => () => Promise.resolve(report([])),
  },
  "GET /health/ready": {
    ...TAKES_NOTHING,
    auth: "public",
    contract: ready,
    summary: "Whether this gateway can serve",
    statuses: [200, 503],
    read: () => () => Promise.resolve(report(readiness(broker))),
  },
  "GET /health": {
    ...TAKES_NOTHING,
    auth: "public",
    lane: "operations",
    contract: health,
    summary: "Whether every service and the transporter respond, and every database accepts writes",
    statuses: [200, 503],
    read: () => async (ctx) => {
      const services = await Promise.all(Object.entries(HEALTH).map(([name, contract]) => checkService(ctx, name, contract)));
      return report([...readiness(broker), ...services.flat()]);
    },
  },
});
