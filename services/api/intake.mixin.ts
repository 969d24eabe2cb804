import type { IncomingMessage, ServerResponse } from "node:http";
import type { ServiceSchema } from "moleculer";
import type { SchemaFor } from "../../broker/contract";
import { errorCode, problem, tooLate } from "../../broker/errors";
import { asRequest, withRequestId } from "../../broker/request";
import type { Config } from "../../config";
import type { Caller } from "../../contracts/users";
import { bearerToken, unauthenticated } from "./auth/token-verifier";
import type { Exchange } from "./connections/exchange";
import type { Api } from "./gateway";
import { hotProductId, serveHotRead } from "./hot-read";
import { mergeParts, limitParts } from "./connections/parts";
import { parseForm } from "./http/form";
import { CLIENT_GONE } from "./http/metrics";
import { leaveBasePath } from "./http/base-path";
import { decode } from "./http/decoding";
import { problemDetails } from "./http/problem";
import {
  BODY_LIMIT_BYTES,
  bodyRefusal,
  checkHeaders,
  dropExcessHeaders,
  hasBody,
  ignoreBody,
  isFormBody,
  isProbe,
  METHODS,
  parseJson,
  pathOf,
  requestId,
  splitTarget,
  takeCoding,
  targetRefusal,
  useOriginForm,
  WHOLE_SERVER,
} from "./http/request";
import type { HttpResponse } from "./routing/route";
import { refuseAtOnce } from "./connections/early-refusal";
import type { RoutedRequest } from "./web.mixin";

/** Maximum characters of a path in the log: a client may send 16 KiB. */
const MAX_LOGGED = 200;

/**
 * Admits requests, cheapest checks first: the address's share, the token, the user's share, the body, and then the request's turn.
 */
export function intake({ basePath }: Pick<Config, "basePath">): Partial<ServiceSchema> {
  const schema: Partial<SchemaFor<Api>> = {
    methods: {
      /** Entry point of every request. */
      receive(this: Api, req: IncomingMessage, res: ServerResponse): void {
        useOriginForm(req);
        if (basePath !== "") leaveBasePath(req, basePath);
        dropExcessHeaders(req);
        mergeParts(req);
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
            this.sendFailure(req, res, error);
          });
        };
        try {
          checkHeaders(req);
          if (!isProbe(req)) this.checkShare(exchange);
          this.turns.run(exchange, take);
        } catch (error) {
          this.refuse(exchange, error);
        }
      },

      refuse(this: Api, exchange: Exchange, refusal: unknown): void {
        exchange.isRefused = errorCode(refusal) !== "BAD_REQUEST"; // refusals for overload have a metric of their own and are not logged
        if (exchange.isRefused) this.metrics?.refused();
        this.connections.markReady(exchange, refuseAtOnce(exchange.res, this.baseHeaders(exchange), exchange.id, refusal, basePath));
        this.connections.pauseReading(exchange);
      },

      /** Called when the response is sent or the client has disconnected. */
      onFinished(this: Api, { id, req, res, since, routePath, isRefused, stream }: Exchange): void {
        stream?.close(); // not on the response's "close", which Node 20 does not emit for one that waits behind another
        const milliseconds = performance.now() - since;
        this.metrics?.served(req, res, routePath, milliseconds);
        if (stream === undefined) this.activity.note(res.writableFinished ? res.statusCode : CLIENT_GONE, milliseconds);
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
        const productId = hotProductId(req);
        if (productId !== undefined) return serveHotRead(this, exchange, productId);
        if (req.method !== "OPTIONS") return this.routed(exchange);
        if (this.cors.isPreflight(req)) {
          this.send(req, res, { status: 204, headers: this.cors.preflightHeaders(req) });
          return;
        }
        const methods = pathOf(req) === WHOLE_SERVER ? METHODS : this.methodsOf(pathOf(req));
        if (methods.length === 0) this.sendNoRoute(req, res);
        else this.send(req, res, { status: 204, headers: { Allow: [...methods, "OPTIONS"].join(", ") } });
      },

      /** Checks the token, then the user's share, and then the body's headers, all before `dispatch`, which reads the body. */
      async routed(this: Api, exchange: Exchange): Promise<void> {
        const { req, res } = exchange;
        const target = splitTarget(req.url ?? "/");
        const found = this.routeFor(target.url, req.method ?? "");
        if (found === undefined) {
          this.sendNoRoute(req, res);
          return;
        }
        exchange.routePath = found.path;
        const { spec } = found;
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
          this.connections.countBody(exchange);
          limitParts(req, (refusal) => {
            this.sendFailure(req, res, refusal);
          });
        }
        exchange.coding = takeCoding(req);
        if (req.headers.expect?.toLowerCase() === "100-continue") res.writeContinue();
        await this.dispatch(exchange, found, target);
      },

      respond,

      async authenticated(this: Api, req: IncomingMessage, auth: "user" | "admin"): Promise<Caller> {
        const token = bearerToken(req.headers.authorization);
        if (token === undefined) throw unauthenticated(false);
        const caller = await this.verifier.verify(token);
        if (auth === "admin" && caller.role !== "admin") throw problem("FORBIDDEN", "this is for admins");
        return caller;
      },
    },
  };
  return schema as unknown as Partial<ServiceSchema>; // mixins are declared for a plain `this`
}

/**
 * Calls the action of a route when the request's turn comes; its body has been read by then. The request is validated before it waits,
 * since one that is refused anyway would only take up space in the queue.
 */
export function respond(this: Api, exchange: Exchange, request: RoutedRequest, fail: (error: unknown) => void): void {
  const { req, res } = exchange;
  if (res.headersSent) return; // the body was refused while being read
  const { spec, ctx, path, query, body } = request;
  const read = (bytes: Buffer) =>
    spec.read({
      method: req.method,
      path,
      query,
      body: exchange.form ? parseForm(bytes) : parseJson(bytes),
      headers: req.headers,
      requester: exchange,
    });
  exchange.extendDeadline(spec.contract.timeoutMs);
  const isWanted = (): boolean => exchange.isWanted();
  const { lane } = spec;
  const serve = async (bytes: Buffer): Promise<void> => {
    const perform = read(bytes);
    const handle = (): Promise<HttpResponse> => perform(ctx, this.batched);
    const inTurn = lane === "none" ? handle : (): Promise<HttpResponse> => this.lanes[lane].run(exchange, handle, isWanted);
    this.send(req, res, await (isProbe(req) ? handle() : this.admission.run(exchange, inTurn, isWanted)));
  };
  const begin = (bytes: Buffer): void => {
    asRequest(exchange, () => serve(bytes)).catch(fail);
  };
  const beginInTurn = (bytes: Buffer): void => {
    try {
      this.turns.run(exchange, () => {
        if (isWanted()) begin(bytes);
        else fail(tooLate()); // before its body is parsed and checked
      });
    } catch (error) {
      fail(error);
    }
  };
  const { coding } = exchange;
  if (spec.body === "none") begin(body);
  else if (coding === undefined || body.length === 0) beginInTurn(body);
  else this.decoding.run(exchange, () => decode(body, coding, BODY_LIMIT_BYTES), isWanted).then(beginInTurn, fail);
}
