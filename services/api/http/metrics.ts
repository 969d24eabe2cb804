import type { IncomingMessage, ServerResponse } from "node:http";
import type { Metrics } from "../../../broker/metrics";
import type { FairSlots } from "../../../mixins/fair-queue";
import { hotProduct, pathOf } from "./request";

/** With its route, if moleculer-web has found one. */
type Request = IncomingMessage & { $alias?: { fullPath: string } };

/** All other methods are counted as one: clients can invent methods and paths, and each label would be kept for ever. */
const METHODS = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);
const NO_ROUTE = "none";
/** As in nginx: the client disconnected before its response was sent. */
const CLIENT_GONE = "499";

/** Request metrics of a gateway. */
export class RequestMetrics {
  private readonly durations;
  private readonly refusals;

  /** @param routeAt the route of a path, for any method: for requests that moleculer-web has not routed */
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
        help: "HTTP requests admitted and not yet responded to",
        value: admission.inFlight + admission.waiting,
      },
    ]);
  }

  served(req: Request, res: ServerResponse, milliseconds: number): void {
    this.count(req, this.routeOf(req), res.writableFinished ? String(res.statusCode) : CLIENT_GONE, milliseconds);
  }

  /** A request refused at once, and therefore without a route. */
  refused(): void {
    this.refusals.inc();
  }

  private routeOf(req: Request): string {
    if (req.$alias !== undefined) return req.$alias.fullPath;
    return hotProduct(req) === undefined ? (this.routeAt(pathOf(req)) ?? NO_ROUTE) : "/products/:id";
  }

  private count({ method = "" }: Request, route: string, status: string, milliseconds: number): void {
    this.durations.observe({ method: METHODS.has(method) ? method : "other", route, status }, milliseconds / 1_000);
  }
}
