import type { IncomingMessage, ServerResponse } from "node:http";
import type { Metrics } from "../../../broker/metrics";
import type { FairSlots } from "../../../mixins/fair-queue";
import { METHODS, pathOf } from "./request";

/** All other methods are counted as one: clients can invent methods and paths, and each label would be kept for ever. */
const COUNTED = new Set([...METHODS, "OPTIONS"]);
const NO_ROUTE = "none";
/** As in nginx: the client disconnected before its response was sent. */
export const CLIENT_GONE = 499;

/** Request metrics of a gateway. */
export class RequestMetrics {
  private readonly durations;
  private readonly refusals;

  /** @param routeAt the route of a path, for any method: for requests whose own route was not looked for, or does not exist */
  constructor(
    metrics: Metrics,
    admission: FairSlots,
    private readonly routeAt: (path: string) => string | undefined,
  ) {
    this.durations = metrics.durations(
      "shop_http_request_duration_seconds",
      "HTTP requests, from their head until their response is sent",
      ["method", "route", "status"],
    );
    this.refusals = metrics.counter("shop_http_refused_total", "HTTP requests refused at once, since too many were in progress");
    metrics.observe("admission", () => [
      {
        name: "shop_http_requests_under_way",
        help: "HTTP requests in flight or queued for admission",
        value: admission.inFlight + admission.waiting,
      },
    ]);
  }

  /** @param routePath the path of its route, if that was found */
  served(req: IncomingMessage, res: ServerResponse, routePath: string | undefined, milliseconds: number): void {
    const { method = "" } = req;
    const route = routePath ?? this.routeAt(pathOf(req)) ?? NO_ROUTE;
    const status = String(res.writableFinished ? res.statusCode : CLIENT_GONE);
    this.durations.observe({ method: COUNTED.has(method) ? method : "other", route, status }, milliseconds / 1_000);
  }

  /** A request refused at once, and therefore without a route. */
  refused(): void {
    this.refusals.inc();
  }
}
