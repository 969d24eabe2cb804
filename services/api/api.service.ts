import type { IncomingMessage, ServerResponse } from "node:http";
import type { Context, ServiceBroker } from "moleculer";
import ApiGateway from "moleculer-web";
import { call, subscribe, type Meta, type SchemaFor } from "../../broker/contract";
import { problem } from "../../broker/errors";
import { withRequestId } from "../../broker/logger";
import { metricsOf } from "../../broker/metrics";
import { loadConfig, type Config } from "../../config";
import { orderChanged } from "../../contracts/orders";
import { jwks, revocations, type Caller } from "../../contracts/users";
import { bearerToken, TokenVerifier, unauthenticated } from "./access";
import { Admission } from "./admission";
import { answers } from "./answers";
import { ClientAddress } from "./client-address";
import { docsRoutes } from "./docs";
import { gather } from "./gather";
import type { Alias, Api, RoutedRequest } from "./gateway";
import { healthRoutes } from "./health";
import { RequestMetrics } from "./metrics";
import { nodesRoute } from "./nodes";
import { problemDetails, translated } from "./problem";
import { RateLimit } from "./rate-limit";
import { hotProduct, isAcceptable, isProbe, isPreflight, pathOf, requestId } from "./request";
import { readProduct, ROUTES } from "./routes";
import { Streams, type StreamLimits } from "./streams";
import { answerUnreadable, refuseAtOnce } from "./unserved";

const BODY_LIMIT = "100kb";
/** A client that does not finish its head or its request in this time is cut off, in ms: with the interval at which they are looked for, in 30 s. */
const REQUEST_TIMEOUT = 25_000;
const TIMEOUT_INTERVAL = 5_000;
/** Milliseconds that a stopping gateway waits for what it has begun. */
const DRAIN_LIMIT = 10_000;

/** What is extended below; a mixin's method can't be called by its name once it is overridden. */
const web = ApiGateway.methods as Record<"httpHandler" | "resolveAlias" | "writeCorsHeaders", (...args: unknown[]) => unknown>;

/** The gateway: the single public entry. Routes, authenticates, authorises; knows no business. */
export default function api(
  broker: ServiceBroker,
  config: Config = loadConfig(),
  streamLimits: Partial<StreamLimits> = {},
): SchemaFor<Api> {
  const shop = { ...ROUTES, ...healthRoutes(broker), ...nodesRoute(broker) };
  const routes = { ...shop, ...docsRoutes(shop) };
  const isAllowed = (origin: string): boolean => config.corsOrigins.includes(origin);
  return {
    name: "api",
    mixins: [answers(config), ApiGateway],

    settings: {
      $secureSettings: ["routes", "cors"], // not for the other nodes
      port: config.port,
      ip: config.host,
      etag: false,
      logRequest: null,
      logRequestParams: null,
      logResponse: null,
      logRouteRegistration: null,
      requestTimeout: REQUEST_TIMEOUT,
      debounceTime: 1,
      cors: config.corsOrigins.length > 0 && {
        origin: isAllowed, // a string would be matched by substring
        methods: ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        allowedHeaders: ["Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID", "X-Request-Id"],
        exposedHeaders: ["ETag", "Link", "Location", "Retry-After", "X-Request-Id", "Idempotent-Replayed"],
        maxAge: 600,
      },
      routes: [
        {
          path: "/",
          pathToRegexpOptions: { sensitive: true },
          mappingPolicy: "restrict",
          mergeParams: false,
          authentication: true,
          authorization: true,
          bodyParsers: {
            json: { limit: BODY_LIMIT, type: ["application/json", "application/*+json"], strict: false },
            urlencoded: { limit: BODY_LIMIT, extended: false },
          },
          aliases: Object.fromEntries(Object.entries(routes).map(([path, spec]) => [path, { spec, handler: respond }])),
        },
      ],
    },

    actions: {
      // Open connections are the gateway's own limit, and a service that is away must not shut the door to the others.
      rest: { bulkhead: { enabled: false }, circuitBreaker: { enabled: false } },
      listAliases: false,
      addRoute: false,
      removeRoute: false,
    },

    events: {
      "order.changed": subscribe(orderChanged, function (this: Api, ctx) {
        this.streams.changed(ctx.params.orders);
        return Promise.resolve();
      }),
    },

    hooks: {
      error: {
        rest(_ctx: unknown, error: Error) {
          throw translated(error);
        },
      },
    },

    methods: {
      /** Every request passes here first, whatever becomes of it. */
      async httpHandler(this: Api, req: IncomingMessage, res: ServerResponse): Promise<void> {
        const id = requestId(req);
        if (this.admission.isFull && !isProbe(req)) {
          refuseAtOnce(res, id);
          this.metrics?.refused(req);
          return;
        }
        const since = performance.now();
        this.admission.enter(req, res);
        res.once("close", () => {
          this.metrics?.served(req, res, performance.now() - since);
          if (res.writableFinished)
            withRequestId(id, () => {
              this.logger.info(req.method, pathOf(req), res.statusCode, `${(performance.now() - since).toFixed(1)} ms`);
            });
        });
        await withRequestId(id, () => this.take(req, res, id)).catch((error: unknown) => {
          this.errorHandler(req, res, error);
        });
        if (res.writableEnded) this.admission.answered(res); // by moleculer-web itself, as a preflight is
      },

      async take(this: Api, req: IncomingMessage, res: ServerResponse, id: string): Promise<void> {
        if (this.rateLimit.isOn && !isProbe(req)) this.rateLimit.count(this.address.of(req));
        const product = hotProduct(req);
        if (product !== undefined) return this.readProduct(req, res, product);
        for (const [name, value] of Object.entries(this.baseHeaders(req))) res.setHeader(name, value);
        if (req.headers.host === undefined && req.httpVersion === "1.1") {
          this.sendProblem(req, res, problemDetails("BAD_REQUEST", id, "a Host header is needed")); // RFC 9112, 3.2
          return;
        }
        // moleculer-web would take the method that a preflight asks about for the request's own.
        if (req.method !== "OPTIONS" || isPreflight(req, config)) {
          await web.httpHandler.call(this, req, res);
          return;
        }
        const methods = this.methodsOf(pathOf(req));
        if (methods.length === 0) this.send404(req, res);
        else this.send(req, res, { status: 204, headers: { Allow: [...methods, "OPTIONS"].join(", ") } });
      },

      /**
       * The hottest read, past the machinery of moleculer-web, which would take half of its time: it has no body, no caller
       * and no CORS, and is the same route otherwise.
       */
      async readProduct(this: Api, req: IncomingMessage, res: ServerResponse, id: string): Promise<void> {
        try {
          this.send(req, res, await readProduct({ path: { id }, headers: req.headers }, this.gather));
        } catch (error) {
          this.errorHandler(req, res, error);
        }
      },

      /** Flat, and into an object without a prototype: `constructor` and `__proto__` are names like others. */
      parseQueryString(req: IncomingMessage): { url: string; query: Record<string, unknown> } {
        const [url = "/", ...rest] = (req.url ?? "/").split("?");
        const query = Object.create(null) as Record<string, unknown>;
        for (const [name, value] of new URLSearchParams(rest.join("?"))) query[name] = name in query ? [query[name], value] : value;
        return { url, query };
      },

      /** HEAD is GET without the body (RFC 9110, 9.3.2). */
      resolveAlias(this: Api, url: string, method: string): unknown {
        return web.resolveAlias.call(this, url, method === "HEAD" ? "GET" : method);
      },

      /** A foreign origin gets its answer without CORS headers: its browser keeps it from reading it. */
      writeCorsHeaders(this: Api, route: unknown, req: IncomingMessage, res: ServerResponse, isPreFlight: boolean): void {
        res.setHeader("Vary", "Origin");
        if (req.headers.origin !== undefined && isAllowed(req.headers.origin))
          web.writeCorsHeaders.call(this, route, req, res, isPreFlight);
      },

      async authenticate(
        this: Api,
        _ctx: unknown,
        _route: unknown,
        req: IncomingMessage,
        _res: unknown,
        alias: Alias,
      ): Promise<Caller | null> {
        if (alias.spec.auth === "public") return null;
        const token = bearerToken(req.headers.authorization);
        return token === undefined ? null : this.verifier.verify(token);
      },

      authorize(ctx: Context<unknown, Meta>, _route: unknown, _req: unknown, _res: unknown, alias: Alias): Promise<void> {
        const { auth } = alias.spec;
        if (auth !== "public" && !ctx.meta.user) return Promise.reject(unauthenticated());
        if (auth === "admin" && ctx.meta.user?.role !== "admin") return Promise.reject(problem("FORBIDDEN", "this is for admins"));
        return Promise.resolve();
      },

      /** No new connections; ends when the last request is answered, or after DRAIN_LIMIT. Called before any service of this node stops. */
      async drain(this: Api): Promise<void> {
        if (!this.server.listening) return;
        this.streams.end();
        const closed = new Promise((resolve) => this.server.close(resolve));
        const since = performance.now();
        const timer = setInterval(() => {
          // Node takes a connection that has sent nothing, or half a head, for a busy one, and looks for timeouts no more.
          if (this.admission.isIdle || performance.now() - since > DRAIN_LIMIT) this.server.closeAllConnections();
          else this.server.closeIdleConnections();
        }, 50);
        await closed;
        clearInterval(timer);
      },
    },

    created(this: Api) {
      this.gather = gather(this.broker);
      this.admission = new Admission();
      const metrics = metricsOf(this.broker);
      if (metrics)
        this.metrics = new RequestMetrics(metrics, this.admission, (path) => this.aliases.find(({ re }) => re.test(path))?.fullPath);
      this.address = new ClientAddress(config.trustProxy);
      this.rateLimit = new RateLimit(config.rateLimit.requests);
      this.verifier = new TokenVerifier(
        {
          keys: async () => (await call(this.broker, jwks, {})).keys,
          revocations: (params) => call(this.broker, revocations, params, { retries: 0 }),
        },
        (what, error) => {
          this.logger.warn(what, error);
        },
      );
      this.streams = new Streams(this.gather, this.verifier, streamLimits);
      Object.assign(this.server, { headersTimeout: REQUEST_TIMEOUT, connectionsCheckingInterval: TIMEOUT_INTERVAL });
      this.server.on("clientError", answerUnreadable);
      // Node would answer these by itself, and not with a problem.
      this.server.requireHostHeader = false;
      this.server.on("checkExpectation", (req: IncomingMessage, res: ServerResponse) => void this.httpHandler(req, res));
    },

    /** Where a file is loaded anew this service alone stops: it would wait for its streams. */
    stopped(this: Api) {
      this.streams.end();
    },
  };
}

/** Calls the action of a route; moleculer-web has authenticated and authorised by then. */
function respond(this: Api, req: RoutedRequest, res: ServerResponse, next: (error: unknown) => void): void {
  const { spec } = req.$alias;
  if (spec.body !== "none" && !isAcceptable(req, spec.body)) {
    next(
      problem(
        "UNSUPPORTED_MEDIA_TYPE",
        spec.body.form === undefined ? "the body must be application/json" : "the body must be application/json or a form",
      ),
    );
    return;
  }
  const input = {
    path: req.$params.params ?? {},
    query: req.$params.query ?? {},
    body: req.body,
    headers: req.headers,
    address: () => this.address.of(req),
  };
  // Inside an async function, so that a mistake in the input rejects as well.
  void (async () => {
    this.send(req, res, await spec.handle(req.$ctx, input, this.gather));
  })().catch(next);
}
