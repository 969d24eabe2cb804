import type { IncomingMessage, ServerResponse } from "node:http";
import type { Context, ServiceSchema } from "moleculer";
import type { Meta, SchemaFor } from "../../broker/contract";
import { problem, tooLate } from "../../broker/errors";
import { asRequest, withRequestId } from "../../broker/request";
import type { Config } from "../../config";
import type { Caller } from "../../contracts/users";
import { bearerToken, unauthenticated } from "./auth/token-verifier";
import type { Exchange } from "./connections/exchange";
import type { Alias, Api, RoutedRequest } from "./gateway";
import { countParts, limitParts } from "./connections/parts";
import { parseForm } from "./http/form";
import { leaveBasePath } from "./http/base-path";
import { problemDetails } from "./http/problem";
import {
  bodyRefusal,
  hasBody,
  hotProduct,
  ignoreBody,
  isFormBody,
  isProbe,
  METHODS,
  parseJson,
  pathOf,
  requestId,
  splitTarget,
  targetRefusal,
  useOriginForm,
  WHOLE_SERVER,
} from "./http/request";
import type { Reply } from "./routing/route";
import { readProduct } from "./routes/shop";
import { refuseAtOnce } from "./connections/early-rejection";

/** Maximum characters of a path in the log: a client may send 16 KiB. */
const MAX_LOGGED = 200;
/** The body of a request without one. */
const NOTHING = Buffer.alloc(0);

/**
 * Admits requests, cheapest checks first: the address's share, the token, the user's share, the body, and then the request's turn.
 */
export function intake({ basePath }: Pick<Config, "basePath">): Partial<ServiceSchema> {
  const schema: Partial<SchemaFor<Api>> = {
    methods: {
      /** Entry point of every request. */
      httpHandler(this: Api, req: IncomingMessage, res: ServerResponse): void {
        useOriginForm(req);
        if (basePath !== "") leaveBasePath(req, basePath);
        countParts(req);
        this.connections.open(requestId(req), req, res, (exchange) => {
          this.begin(exchange);
        });
      },

      begin(this: Api, exchange: Exchange): void {
        const { req, res } = exchange;
        const take = (): void => {
          if (exchange.isOver) return; // the client has disconnected
          try {
            if (!isProbe(req)) this.admission.check(exchange); // again, since others were admitted meanwhile
          } catch (error) {
            this.refuse(exchange, error);
            return;
          }
          asRequest(exchange, () => this.take(exchange)).catch((error: unknown) => {
            this.errorHandler(req, res, error);
          });
        };
        try {
          if (!isProbe(req)) this.checkShare(exchange);
          this.turns.run(exchange, take);
        } catch (error) {
          this.refuse(exchange, error);
        }
      },

      refuse(this: Api, exchange: Exchange, refusal: unknown): void {
        exchange.isRefused = true;
        this.metrics?.refused();
        this.connections.made(exchange, refuseAtOnce(exchange.res, this.baseHeaders(exchange), exchange.id, refusal, basePath));
      },

      /** Called when the response is sent or the client has disconnected. */
      finished(this: Api, { id, req, res, since, isRefused, stream }: Exchange): void {
        stream?.close(); // not on the response's "close", which Node 20 does not emit for one that waits behind another
        const milliseconds = performance.now() - since;
        this.metrics?.served(req, res, milliseconds);
        if (isRefused) return;
        const status = res.headersSent ? res.statusCode : "no response";
        const end = res.writableFinished ? "" : ", disconnected by the client";
        withRequestId(id, () => {
          this.logger.info(req.method, pathOf(req).slice(0, MAX_LOGGED), status, `${milliseconds.toFixed(1)} ms${end}`);
        });
      },

      /** Checks the address's share, before any other work on the request. */
      checkShare(this: Api, exchange: Exchange): void {
        this.connections.check(exchange);
        this.admission.check(exchange);
        // A browser sends preflights of its own accord: they must not use up what the page's requests may.
        if (this.rateLimit.isOn && !this.cors.isPreflight(exchange.req)) this.rateLimit.count(exchange.address);
      },

      async take(this: Api, exchange: Exchange): Promise<void> {
        const { id, req, res } = exchange;
        const refusal = targetRefusal(req);
        if (refusal !== undefined) {
          this.sendProblem(req, res, problemDetails("BAD_REQUEST", id, basePath, refusal));
          return;
        }
        const product = hotProduct(req);
        if (product !== undefined) return this.readProduct(exchange, product);
        if (req.method !== "OPTIONS") return this.routed(exchange);
        if (this.cors.isPreflight(req)) {
          this.send(req, res, { status: 204, headers: this.cors.preflightHeaders(req) });
          return;
        }
        const methods = pathOf(req) === WHOLE_SERVER ? METHODS : this.methodsOf(pathOf(req));
        if (methods.length === 0) this.send404(req, res);
        else this.send(req, res, { status: 204, headers: { Allow: [...methods, "OPTIONS"].join(", ") } });
      },

      /**
       * Checks the token, then the user's share, and then the body's headers, since moleculer-web reads the body before it authenticates.
       * Calls moleculer-web's `routeHandler` itself, since its action `rest` would parse the target and resolve the route again.
       */
      async routed(this: Api, exchange: Exchange): Promise<void> {
        const { id, req, res } = exchange;
        const { url, query } = splitTarget(req.url ?? "/");
        const found = this.resolveAlias(url.length > 1 && url.endsWith("/") ? url.slice(0, -1) : url, req.method ?? "");
        if (!found) {
          this.send404(req, res);
          return;
        }
        const { spec } = found.alias;
        if (spec.auth !== "public") {
          exchange.caller = await this.authenticated(req, spec.auth);
          if (!isProbe(req)) this.admission.check(exchange);
        }
        if (spec.lane === "passwords") this.passwordRate.count(exchange.address);
        if (spec.body === "none") {
          if (hasBody(req)) ignoreBody(req);
        } else if (spec.body !== "empty" || hasBody(req)) {
          const form = spec.body === "empty" ? undefined : spec.body.form;
          const refusal = bodyRefusal(req, form !== undefined);
          if (refusal !== undefined) throw refusal;
          if (isFormBody(req)) exchange.form = form;
          this.connections.reads(exchange);
          limitParts(req, (refusal) => {
            this.errorHandler(req, res, refusal);
          });
        }
        if (req.headers.expect?.toLowerCase() === "100-continue") res.writeContinue();
        const ctx = new this.broker.ContextFactory(this.broker);
        ctx.requestID = id;
        await this.routeHandler(ctx, found.alias.route, Object.assign(req, { $ctx: ctx, parsedUrl: url, query }), res, found);
      },

      async authenticated(this: Api, req: IncomingMessage, auth: "user" | "admin"): Promise<Caller> {
        const token = bearerToken(req.headers.authorization);
        if (token === undefined) throw unauthenticated();
        const caller = await this.verifier.verify(token);
        if (auth === "admin" && caller.role !== "admin") throw problem("FORBIDDEN", "this is for admins");
        return caller;
      },

      /**
       * Fast path for the most frequent read, without moleculer-web, which would take half of its time. It has no body, no caller
       * and no CORS; otherwise it behaves as its route does.
       */
      async readProduct(this: Api, exchange: Exchange, id: string): Promise<void> {
        const { req, res } = exchange;
        const reply = await this.admission.run(
          exchange,
          () => readProduct(id, { headers: req.headers, requester: exchange }, this.batched),
          () => exchange.isWanted(),
        );
        this.send(req, res, reply);
      },

      /** `routed` has authenticated the request already. */
      authenticate(this: Api, _ctx: unknown, _route: unknown, _req: unknown, res: ServerResponse): Promise<Caller | null> {
        return Promise.resolve(this.connections.of(res).caller ?? null);
      },

      /** Checks again, in case a request ever bypasses `routed`. */
      authorize(this: Api, ctx: Context<unknown, Meta>, _route: unknown, _req: unknown, res: ServerResponse, alias: Alias): Promise<void> {
        const { auth } = alias.spec;
        if (auth !== "public" && !ctx.meta.user) return Promise.reject(unauthenticated());
        if (auth === "admin" && ctx.meta.user?.role !== "admin") return Promise.reject(problem("FORBIDDEN", "this is for admins"));
        if (ctx.meta.user?.role === "admin") ctx.meta.address = this.connections.of(res).address; // for the audit log
        return Promise.resolve();
      },
    },
  };
  return schema as unknown as Partial<ServiceSchema>; // mixins are declared for a plain `this`
}

/**
 * Calls the action of a route when the request's turn comes; moleculer-web has read the body by then. The request is validated before it
 * waits, since one that is refused anyway would only take up space in the queue.
 */
export function respond(this: Api, req: RoutedRequest, res: ServerResponse, next: (error: unknown) => void): void {
  if (res.headersSent) return; // the body was refused while being read
  const exchange = this.connections.of(res);
  const { spec } = req.$alias;
  const bytes = Buffer.isBuffer(req.body) ? req.body : NOTHING;
  const read = () =>
    spec.read({
      path: req.$params.params ?? {},
      query: req.$params.query ?? {},
      body: exchange.form ? parseForm(bytes) : parseJson(bytes),
      headers: req.headers,
      requester: exchange,
    });
  exchange.allow(spec.contract.timeout);
  const isWanted = (): boolean => exchange.isWanted();
  const { lane } = spec;
  const serve = async (): Promise<void> => {
    const perform = read();
    const handle = (): Promise<Reply> => perform(req.$ctx, this.batched);
    const inTurn = lane === "none" ? handle : (): Promise<Reply> => this.lanes[lane].run(exchange, handle, isWanted);
    this.send(req, res, await (isProbe(req) ? handle() : this.admission.run(exchange, inTurn, isWanted)));
  };
  const begin = (): void => {
    asRequest(exchange, serve).catch(next);
  };
  if (spec.body === "none") begin();
  else {
    try {
      this.turns.run(exchange, () => {
        if (isWanted()) begin();
        else next(tooLate()); // before its body is parsed and checked
      });
    } catch (error) {
      next(error);
    }
  }
}
