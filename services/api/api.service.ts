import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import type { ServiceBroker } from "moleculer";
import ApiGateway from "moleculer-web";
import { call, subscribe, type SchemaFor } from "../../broker/contract";
import { metricsOf } from "../../broker/metrics";
import { currentRequestId, withRequest } from "../../broker/request";
import { loadConfig, type Config } from "../../config";
import { orderChanged } from "../../contracts/orders";
import { checkSessions, jwks, revocations } from "../../contracts/users";
import { FairSlots } from "../../mixins/fair-queue";
import { TokenVerifier } from "./auth/token-verifier";
import { responder } from "./responder.mixin";
import { ClientAddress } from "./http/client-address";
import { Connections, type ConnectionLimits } from "./connections/connections";
import { Cors } from "./http/cors";
import { docsRoutes } from "./openapi/docs-page";
import { Doors } from "./connections/doors";
import { batchedCalls } from "./batched-calls";
import type { Api } from "./gateway";
import { healthRoutes } from "./routes/health";
import { intake, respond } from "./intake.mixin";
import { ADMISSION, lanes } from "./routing/lanes";
import { LoopTurns } from "./connections/loop-turns";
import { RequestMetrics } from "./http/metrics";
import { nodesRoute } from "./routes/nodes";
import { problemRoutes } from "./routes/problems";
import { RateLimit } from "./http/rate-limit";
import { isKnownBody, splitTarget } from "./http/request";
import { ROUTES } from "./routes/shop";
import { metadataRoutes } from "./routes/token";
import { Streams, type StreamLimits } from "./streams";
import { refuseUnreadable } from "./connections/early-rejection";

const BODY_LIMIT = "100kb";
/** Time limits for receiving a request's head and the whole request, in ms. With the check interval, a slow client is cut off within 30 s. */
const REQUEST_TIMEOUT = 25_000;
const TIMEOUT_INTERVAL = 5_000;
/**
 * Requests with a password that one address may make per second: three times what four threads can hash at that cost. Each request over
 * the login limits would still cost a call and four statements, so a flood would take CPU time from password hashing.
 */
const passwordsOf = (cost: number): number => Math.max(10, Math.round(50 * 2 ** (12 - cost)));
/** Milliseconds that a gateway waits at shutdown for requests in progress. */
const DRAIN_LIMIT = 10_000;

/** Methods overridden below: an overridden method of a mixin can no longer be called by its name. */
const web = ApiGateway.methods as Record<"resolveAlias", (...args: unknown[]) => unknown>;

/** Limits that tests lower. */
export interface GatewayLimits {
  streams?: Partial<StreamLimits>;
  connections?: Partial<ConnectionLimits>;
  admission?: Partial<typeof ADMISSION>;
}

/** The gateway is the only public entry point. It routes, authenticates and authorises, and has no business logic. */
export default function api(broker: ServiceBroker, config: Config = loadConfig(), limits: GatewayLimits = {}): SchemaFor<Api> {
  const { basePath, publicUrl } = config;
  const issuer = publicUrl === undefined ? undefined : publicUrl + basePath;
  const shop = {
    ...ROUTES,
    ...metadataRoutes(issuer),
    ...healthRoutes(broker),
    ...nodesRoute(broker),
    ...problemRoutes(basePath),
  };
  const routes = { ...shop, ...docsRoutes(shop, basePath) };
  return {
    name: "api",
    mixins: [intake(config), responder(config), ApiGateway],

    settings: {
      $secureSettings: ["routes"], // keep them out of what is published to other nodes
      port: config.port,
      ip: config.host,
      etag: false,
      logRequest: null,
      logRequestParams: null,
      logResponse: null,
      logRouteRegistration: null,
      requestTimeout: REQUEST_TIMEOUT,
      debounceTime: 1,
      routes: [
        {
          path: "/",
          pathToRegexpOptions: { sensitive: true },
          mappingPolicy: "restrict",
          mergeParams: false,
          authentication: true,
          authorization: true,
          bodyParsers: {
            raw: { limit: BODY_LIMIT, type: isKnownBody }, // parsed when the request's turn comes
          },
          aliases: Object.fromEntries(Object.entries(routes).map(([path, spec]) => [path, { spec, handler: respond }])),
        },
      ],
    },

    actions: {
      rest: false, // replaced by `intake`
      listAliases: false,
      addRoute: false,
      removeRoute: false,
    },

    events: {
      [orderChanged.name]: subscribe(orderChanged, function (this: Api, ctx) {
        this.streams.changed(ctx.params.orders);
        return Promise.resolve();
      }),
    },

    methods: {
      parseQueryString: (req: IncomingMessage) => splitTarget(req.url ?? "/"),

      /** HEAD is GET without the response body (RFC 9110, 9.3.2). */
      resolveAlias(this: Api, url: string, method: string): unknown {
        return web.resolveAlias.call(this, url, method === "HEAD" ? "GET" : method);
      },

      /**
       * Called before any service of this node stops. For DRAIN_DELAY the gateway is not ready, but serves: load balancers need that time to
       * notice, and would otherwise meet refused connections. Then it accepts no new connections, and resolves after the last response, or
       * after DRAIN_LIMIT.
       */
      async drain(this: Api): Promise<void> {
        if (!this.server.listening) return;
        if (config.drainDelay > 0) await pause(config.drainDelay * 1_000);
        this.streams.end();
        const closed = this.doors.close();
        const since = performance.now();
        const timer = setInterval(() => {
          // Node treats a connection that has sent nothing or half a head as busy, and has stopped checking timeouts.
          if (this.connections.areIdle || performance.now() - since > DRAIN_LIMIT) this.server.closeAllConnections();
          else this.server.closeIdleConnections();
        }, 50);
        await closed;
        clearInterval(timer);
      },
    },

    created(this: Api) {
      this.batched = batchedCalls(this.broker);
      this.lanes = lanes();
      this.turns = new LoopTurns();
      this.admission = new FairSlots({ ...ADMISSION, ...limits.admission });
      const metrics = metricsOf(this.broker);
      if (metrics)
        this.metrics = new RequestMetrics(metrics, this.admission, (path) => this.aliases.find(({ re }) => re.test(path))?.fullPath);
      this.address = new ClientAddress(config.trustProxy);
      this.cors = new Cors(config, (line) => {
        this.logger.warn(line);
      });
      // moleculer-web formats each request's alias in colour for its debug log, even if that is off.
      for (const alias of this.aliases) alias.toString = () => alias.fullPath;
      this.connections = new Connections(
        this.server,
        this.address,
        this.turns,
        (exchange) => {
          this.finished(exchange);
        },
        limits.connections,
      );
      this.rateLimit = new RateLimit(config.rateLimit.requests);
      this.passwordRate = new RateLimit(passwordsOf(config.bcryptCost));
      this.verifier = new TokenVerifier(
        {
          // These calls serve all waiting requests, so the deadline of the request or stream that triggers one must not apply.
          keys: async () => (await withRequest(currentRequestId(), Infinity, () => call(this.broker, jwks, {}))).keys,
          revocations: (params) => withRequest(currentRequestId(), Infinity, () => call(this.broker, revocations, params, { retries: 0 })),
          checkSessions: (sessions) =>
            withRequest(undefined, Infinity, () => call(this.broker, checkSessions, { sessions }, { retries: 0 })),
        },
        (what, error) => {
          this.logger.warn(what, error);
        },
      );
      this.streams = new Streams(this.batched, this.verifier, limits.streams);
      Object.assign(this.server, {
        headersTimeout: REQUEST_TIMEOUT,
        connectionsCheckingInterval: TIMEOUT_INTERVAL,
        keepAliveTimeout: config.keepAliveTimeout * 1_000,
      });
      this.server.on("clientError", (error: Error, socket: Socket) => {
        if (!this.connections.paused(socket, error)) refuseUnreadable(error, socket, this.connections.at(socket), basePath);
      });
      this.doors = new Doors(this.server);
      this.server.listen = (port?: unknown, host?: unknown, listening?: unknown) => {
        this.doors.open(Number(port), String(host)).then(listening as () => void, (error: unknown) => {
          this.server.emit("error", error);
        });
        return this.server;
      };
      // Node would handle these itself, and respond without problem+json.
      this.server.requireHostHeader = false;
      for (const event of ["checkContinue", "checkExpectation"])
        this.server.on(event, (req: IncomingMessage, res: ServerResponse) => {
          this.httpHandler(req, res);
        });
    },

    /** A hot reload stops only this service, without draining it, and would wait for open streams. */
    stopped(this: Api) {
      this.streams.end();
      this.connections.stop();
      this.verifier.stop();
    },
  };
}
