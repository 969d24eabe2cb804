import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { ServiceBroker } from "moleculer";
import ApiGateway from "moleculer-web";
import { call, subscribe, type SchemaFor } from "../../broker/contract";
import { metricsOf } from "../../broker/metrics";
import { currentRequestId, withRequest } from "../../broker/request";
import { loadConfig, type Config } from "../../config";
import { orderChanged } from "../../contracts/orders";
import { checkSessions, jwks, revocations } from "../../contracts/users";
import { FairSlots } from "../../mixins/fair-queue";
import { TokenVerifier } from "./access";
import { answers } from "./answers";
import { ClientAddress } from "./client-address";
import { Connections, type ConnectionLimits } from "./connections";
import { docsRoutes } from "./docs";
import { Doors } from "./doors";
import { gather } from "./gather";
import type { Api } from "./gateway";
import { healthRoutes } from "./health";
import { intake, respond } from "./intake";
import { ADMISSION, lanes } from "./lanes";
import { LoopTurns } from "./loop-turns";
import { RequestMetrics } from "./metrics";
import { nodesRoute } from "./nodes";
import { RateLimit } from "./rate-limit";
import { isFormBody, isJsonBody, splitTarget } from "./request";
import { ROUTES } from "./routes";
import { Streams, type StreamLimits } from "./streams";
import { refuseUnreadable } from "./unserved";

const BODY_LIMIT = "100kb";
/** A client that does not finish its head or its request in this time is cut off, in ms: with the interval at which they are looked for, in 30 s. */
const REQUEST_TIMEOUT = 25_000;
const TIMEOUT_INTERVAL = 5_000;
/**
 * Requests with a password that one address may make in a second: three times as many as four threads hash at that cost. Each that is over a
 * limit of logins would cost a call and four statements, and a flood of them the cores that passwords are hashed on.
 */
const passwordsOf = (cost: number): number => Math.max(10, Math.round(50 * 2 ** (12 - cost)));
/** Milliseconds that a stopping gateway waits for what it has begun. */
const DRAIN_LIMIT = 10_000;

/** What is extended below; a mixin's method can't be called by its name once it is overridden. */
const web = ApiGateway.methods as Record<"resolveAlias", (...args: unknown[]) => unknown>;

/** Limits that tests set lower. */
export interface GatewayLimits {
  streams?: Partial<StreamLimits>;
  connections?: Partial<ConnectionLimits>;
  admission?: Partial<typeof ADMISSION>;
}

/** The gateway: the single public entry. Routes, authenticates, authorises; knows no business. */
export default function api(broker: ServiceBroker, config: Config = loadConfig(), limits: GatewayLimits = {}): SchemaFor<Api> {
  const shop = { ...ROUTES, ...healthRoutes(broker), ...nodesRoute(broker) };
  const routes = { ...shop, ...docsRoutes(shop) };
  return {
    name: "api",
    mixins: [intake(config), answers(config), ApiGateway],

    settings: {
      $secureSettings: ["routes"], // not for the other nodes
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
            raw: { limit: BODY_LIMIT, type: isJsonBody }, // parsed when it is its turn
            urlencoded: { limit: BODY_LIMIT, type: isFormBody, extended: false },
          },
          aliases: Object.fromEntries(Object.entries(routes).map(([path, spec]) => [path, { spec, handler: respond }])),
        },
      ],
    },

    actions: {
      rest: false, // `intake` takes its place
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

      /** HEAD is GET without the body (RFC 9110, 9.3.2). */
      resolveAlias(this: Api, url: string, method: string): unknown {
        return web.resolveAlias.call(this, url, method === "HEAD" ? "GET" : method);
      },

      /** No new connections; ends when the last request is answered, or after DRAIN_LIMIT. Called before any service of this node stops. */
      async drain(this: Api): Promise<void> {
        if (!this.server.listening) return;
        this.streams.end();
        const closed = this.doors.close();
        const since = performance.now();
        const timer = setInterval(() => {
          // Node takes a connection that has sent nothing, or half a head, for a busy one, and looks for timeouts no more.
          if (this.connections.areIdle || performance.now() - since > DRAIN_LIMIT) this.server.closeAllConnections();
          else this.server.closeIdleConnections();
        }, 50);
        await closed;
        clearInterval(timer);
      },
    },

    created(this: Api) {
      this.gather = gather(this.broker);
      this.lanes = lanes();
      this.turns = new LoopTurns();
      this.admission = new FairSlots({ ...ADMISSION, ...limits.admission });
      const metrics = metricsOf(this.broker);
      if (metrics)
        this.metrics = new RequestMetrics(metrics, this.admission, (path) => this.aliases.find(({ re }) => re.test(path))?.fullPath);
      this.address = new ClientAddress(config.trustProxy);
      // For its debug log moleculer-web writes the alias of each request with colours, logged or not.
      for (const alias of this.aliases) alias.toString = () => alias.fullPath;
      this.connections = new Connections(
        this.server,
        this.address,
        this.turns,
        (exchange) => {
          this.over(exchange);
        },
        limits.connections,
      );
      this.rateLimit = new RateLimit(config.rateLimit.requests);
      this.passwordRate = new RateLimit(passwordsOf(config.bcryptCost));
      this.verifier = new TokenVerifier(
        {
          // For all requests that wait: the deadline of the one that happens to ask, or of the stream that once began, must not count.
          keys: async () => (await withRequest(currentRequestId(), Infinity, () => call(this.broker, jwks, {}))).keys,
          revocations: (params) => withRequest(currentRequestId(), Infinity, () => call(this.broker, revocations, params, { retries: 0 })),
          checkSessions: (sessions) =>
            withRequest(undefined, Infinity, () => call(this.broker, checkSessions, { sessions }, { retries: 0 })),
        },
        (what, error) => {
          this.logger.warn(what, error);
        },
      );
      this.streams = new Streams(this.gather, this.verifier, limits.streams);
      Object.assign(this.server, {
        headersTimeout: REQUEST_TIMEOUT,
        connectionsCheckingInterval: TIMEOUT_INTERVAL,
        keepAliveTimeout: config.keepAliveTimeout * 1_000,
      });
      this.server.on("clientError", (error: Error, socket: Socket) => {
        if (!this.connections.paused(socket, error)) refuseUnreadable(error, socket, this.connections.at(socket));
      });
      this.doors = new Doors(this.server);
      this.server.listen = (port?: unknown, host?: unknown, listening?: unknown) => {
        this.doors.open(Number(port), String(host)).then(listening as () => void, (error: unknown) => {
          this.server.emit("error", error);
        });
        return this.server;
      };
      // Node would answer these by itself, and not with a problem.
      this.server.requireHostHeader = false;
      for (const event of ["checkContinue", "checkExpectation"])
        this.server.on(event, (req: IncomingMessage, res: ServerResponse) => {
          this.httpHandler(req, res);
        });
    },

    /** Where a file is loaded anew this service alone stops: it would wait for its streams. */
    stopped(this: Api) {
      this.streams.end();
      this.connections.stop();
      this.verifier.stop();
    },
  };
}
