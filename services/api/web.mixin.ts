import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Context, Service, ServiceSchema } from "moleculer";
import ApiGateway from "moleculer-web";
import type { Meta, SchemaFor } from "../../broker/contract";
import { problem } from "../../broker/errors";
import type { Config } from "../../config";
import type { Caller } from "../../contracts/users";
import { unauthenticated } from "./auth/token-verifier";
import { ListeningSockets } from "./connections/listening-sockets";
import { exchangeOf, type Exchange } from "./connections/exchange";
import { BODY_LIMIT_BYTES, isKnownBody, type splitTarget } from "./http/request";
import type { Route, Routes } from "./routing/route";

/*
 * Everything that depends on moleculer-web: its settings, what is replaced in it, and its private members and shapes. It creates the
 * server, finds routes and reads bodies; the gateway does all else itself. No other file of the gateway imports it or names these members,
 * and test/unit/api/web.mixin.test.ts fails if another version is installed.
 */

/** Time limits for receiving a request's head and the whole request. With the check interval, a slow client is cut off within 30 s. */
const REQUEST_TIMEOUT_MS = 25_000;
const TIMEOUT_CHECK_MS = 5_000;
/** The body of a request without one. */
const NOTHING = Buffer.alloc(0);

/** What the rest of the gateway uses; and `receive` and `respond`, which it provides (intake.mixin.ts). */
export type Web = Service & {
  server: Server;
  listeningSockets: ListeningSockets;
  routeFor(path: string, method: string): FoundRoute | undefined;
  routeAt(path: string): string | undefined;
  methodsOf(path: string): string[];
  dispatch(exchange: Exchange, found: FoundRoute, target: Target): Promise<void>;
  /** Entry point of every request. A property, since it becomes a listener: Moleculer binds methods to their service. */
  receive: (req: IncomingMessage, res: ServerResponse) => void;
  respond(exchange: Exchange, request: RoutedRequest, fail: (error: unknown) => void): void;
};

export interface FoundRoute {
  readonly spec: Route;
  /** As in `ROUTES`. */
  readonly path: string;
  /** For `dispatch`. */
  readonly resolved: Resolved;
}

/** A request whose route is known and whose body has been read. */
export interface RoutedRequest {
  readonly spec: Route;
  readonly ctx: Context<unknown, Meta>;
  readonly path: Readonly<Record<string, string>>;
  readonly query: Readonly<Record<string, unknown>>;
  /** Empty if there is none. */
  readonly body: Buffer;
}

type Target = ReturnType<typeof splitTarget>;

/** A route's path and method in moleculer-web. */
interface Alias {
  method: string;
  fullPath: string;
  re: RegExp;
  /** The object with the settings below, the same for every alias. */
  route: unknown;
  /** Ours, from the settings. */
  spec: Route;
}

interface Resolved {
  alias: Alias;
  params: Record<string, string>;
}

/** A request as moleculer-web passes it to the handler of its alias. */
type WebRequest = IncomingMessage & {
  $alias: Alias;
  $ctx: Context<unknown, Meta>;
  $params: { params?: Record<string, string>; query?: Record<string, unknown> };
  body?: unknown;
};

/** The gateway with the private members of moleculer-web that are used here. */
type WebService = Web & {
  aliases: Alias[];
  resolveAlias(url: string, method: string): Resolved | false;
  /** Reads the body, authenticates, authorizes, and calls the alias's handler. Resolves when the response ends. */
  routeHandler(ctx: Context, route: unknown, req: IncomingMessage, res: ServerResponse, resolved: Resolved): Promise<unknown>;
};

const settings = ({ port, host }: Pick<Config, "port" | "host">, routes: Routes) => ({
  $secureSettings: ["routes"], // keep them out of what is published to other nodes
  port,
  ip: host,
  etag: false,
  logRequest: null,
  logRequestParams: null,
  logResponse: null,
  logRouteRegistration: null,
  requestTimeout: REQUEST_TIMEOUT_MS,
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
        raw: { limit: BODY_LIMIT_BYTES, type: isKnownBody }, // parsed when the request's turn comes
      },
      aliases: Object.fromEntries(Object.entries(routes).map(([line, spec]) => [line, { spec, handler }])),
    },
  ],
});

/** The handler of every alias. `next` rejects the promise of `routeHandler`; without an error, the end of the response resolves it. */
function handler(this: Web, { $alias, $ctx, $params, body }: WebRequest, res: ServerResponse, next: (error: unknown) => void): void {
  const { params = {}, query = {} } = $params;
  const bytes = Buffer.isBuffer(body) ? body : NOTHING;
  this.respond(exchangeOf(res), { spec: $alias.spec, ctx: $ctx, path: params, query, body: bytes }, next);
}

const withoutSlash = (path: string): string => (path.length > 1 && path.endsWith("/") ? path.slice(0, -1) : path);

/** The server passes each request to the gateway's `receive`. What the gateway passes to `dispatch` comes back to its `respond`. */
export function web(config: Pick<Config, "port" | "host" | "keepAliveSeconds">, routes: Routes): Partial<ServiceSchema> {
  const schema: Partial<SchemaFor<WebService>> = {
    mixins: [ApiGateway],
    settings: settings(config, routes),
    actions: {
      rest: false, // replaced by `receive` and `dispatch`
      listAliases: false,
      addRoute: false,
      removeRoute: false,
    },

    methods: {
      /**
       * The route of a request; HEAD is GET without the response body (RFC 9110, 9.3.2).
       * @throws UNABLE_DECODE_PARAM, which http/problem.ts makes BAD_REQUEST
       */
      routeFor(this: WebService, path: string, method: string): FoundRoute | undefined {
        const resolved = this.resolveAlias(withoutSlash(path), method === "HEAD" ? "GET" : method);
        return resolved ? { spec: resolved.alias.spec, path: resolved.alias.fullPath, resolved } : undefined;
      },

      /** The first route with this path, whatever its method: `/products/:id`. */
      routeAt(this: WebService, path: string): string | undefined {
        return this.aliases.find(({ re }) => re.test(path))?.fullPath;
      },

      methodsOf(this: WebService, path: string): string[] {
        const url = withoutSlash(path);
        return this.aliases
          .filter((alias) => alias.re.test(url)) // not match(), which throws if a path can't be decoded
          .flatMap(({ method }) => (method === "GET" ? ["GET", "HEAD"] : method));
      },

      /**
       * Reads the body, and then calls `respond`. Resolves when the response ends. Calls moleculer-web's `routeHandler` itself, since its
       * action `rest` would parse the target and find the route again.
       */
      async dispatch(this: WebService, { id, req, res }: Exchange, { resolved }: FoundRoute, { url, query }: Target): Promise<void> {
        const ctx = new this.broker.ContextFactory(this.broker);
        ctx.requestID = id;
        await this.routeHandler(ctx, resolved.alias.route, Object.assign(req, { $ctx: ctx, parsedUrl: url, query }), res, resolved);
      },

      /** Called by moleculer-web after it has read the body. The token was verified before. */
      authenticate(_ctx: unknown, _route: unknown, _req: unknown, res: ServerResponse): Promise<Caller | null> {
        return Promise.resolve(exchangeOf(res).caller ?? null);
      },

      /** Checks again, in case a request ever reaches `routeHandler` without that. */
      authorize(ctx: Context<unknown, Meta>, _route: unknown, _req: unknown, res: ServerResponse, alias: Alias): Promise<void> {
        const { auth } = alias.spec;
        if (auth !== "public" && !ctx.meta.user) return Promise.reject(unauthenticated());
        if (auth === "admin" && ctx.meta.user?.role !== "admin") return Promise.reject(problem("FORBIDDEN", "this is for admins"));
        if (ctx.meta.user?.role === "admin") ctx.meta.address = exchangeOf(res).address; // for the audit log
        return Promise.resolve();
      },
    },

    created(this: WebService) {
      // moleculer-web formats each request's alias in colour for its debug log, even if that is off.
      for (const alias of this.aliases) alias.toString = () => alias.fullPath;
      Object.assign(this.server, {
        headersTimeout: REQUEST_TIMEOUT_MS,
        connectionsCheckingInterval: TIMEOUT_CHECK_MS,
        keepAliveTimeout: config.keepAliveSeconds * 1_000,
        requireHostHeader: false, // Node would respond without problem+json
      });
      this.listeningSockets = new ListeningSockets(this.server);
      // Called by moleculer-web when the service starts.
      this.server.listen = (port?: unknown, host?: unknown, listening?: unknown) => {
        this.listeningSockets.open(Number(port), String(host)).then(listening as () => void, (error: unknown) => {
          this.server.emit("error", error);
        });
        return this.server;
      };
      // In place of moleculer-web's httpHandler, and of Node's own responses to an Expect header, which are not problem+json.
      for (const event of ["request", "checkContinue", "checkExpectation"]) this.server.removeAllListeners(event).on(event, this.receive);
    },
  };
  return schema as unknown as Partial<ServiceSchema>; // mixins are declared for a plain `this`
}
