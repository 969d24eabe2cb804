import type { IncomingMessage, ServerResponse } from "node:http";
import type { Metrics } from "../../broker/metrics";
import type { FairSlots } from "../../mixins/fair-queue";
import { hotProduct, pathOf } from "./request";

/** With its route, where moleculer-web has found one. */
type Request = IncomingMessage & { $alias?: { fullPath: string } };

/** Any other is one: whoever calls may make methods and paths up, and each would be kept for ever. */
const METHODS = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);
const NO_ROUTE = "none";
/** As in nginx: the client did not wait for its answer. */
const CLIENT_GONE = "499";

/** What a gateway counts of its requests. */
export class RequestMetrics {
  private readonly durations;
  private readonly refusals;

  /** @param routeAt the route at a path, whatever the method: moleculer-web keeps it to itself where it did not get as far */
  constructor(
    metrics: Metrics,
    admission: FairSlots,
    private readonly routeAt: (path: string) => string | undefined,
  ) {
    this.durations = metrics.durations("shop_http_request_duration_seconds", "HTTP requests, from their head until they are answered", [
      "method",
      "route",
      "status",
    ]);
    this.refusals = metrics.counter("shop_http_refused_total", "HTTP requests refused at once, since too many were under way");
    metrics.ask("admission", () => [
      {
        name: "shop_http_requests_under_way",
        help: "HTTP requests that are read and not yet answered",
        value: admission.inFlight + admission.waiting,
      },
    ]);
  }

  served(req: Request, res: ServerResponse, milliseconds: number): void {
    this.count(req, this.routeOf(req), res.writableFinished ? String(res.statusCode) : CLIENT_GONE, milliseconds);
  }

  /** At once, and therefore without its route. */
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
