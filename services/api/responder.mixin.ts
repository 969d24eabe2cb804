import type { IncomingMessage, ServerResponse } from "node:http";
import type { ServiceSchema } from "moleculer";
import { withRequestId } from "../../broker/request";
import type { SchemaFor } from "../../broker/contract";
import { overShare } from "../../mixins/fair-queue";
import type { Config } from "../../config";
import type { ProblemDetails } from "../../contracts/api";
import { bearerToken } from "./auth/token-verifier";
import type { Api } from "./gateway";
import { exchangeOf, type Exchange } from "./connections/exchange";
import type { LoopTurns } from "./connections/loop-turns";
import { isOutside, withBasePath } from "./http/base-path";
import { problemDetails, problemHeaders, toProblem, translated } from "./http/problem";
import { pathOf } from "./http/request";
import type { HttpResponse } from "./routing/route";

/** Minimum size of responses that are written in turns. Encoding and copying one of 32 KiB takes half a millisecond. */
const LARGE_BYTES = 16_384;

/** Writes a large response in this or one of the next turns of the event loop, in rotation with other addresses. */
function writeInTurn(turns: LoopTurns, exchange: Exchange, write: () => void): void {
  try {
    turns.run(exchange, write);
  } catch {
    write(); // its address has too much work queued; the response takes less than another request
  }
}

/** How the gateway responds: with results, streams and errors. */
export function responder(config: Config): Partial<ServiceSchema> {
  const { basePath } = config;
  const schema: Partial<SchemaFor<Api>> = {
    methods: {
      /** Headers of every response. */
      baseHeaders(this: Api, { id, req }: Exchange): Record<string, string> {
        const headers: Record<string, string> = {
          "X-Request-Id": id,
          "X-Content-Type-Options": "nosniff",
        };
        if (config.trustProxy.length > 0 && this.address.isSecure(req)) headers["Strict-Transport-Security"] = "max-age=31536000";
        Object.assign(headers, this.cors.headers(req));
        if (!this.broker.started) headers["Connection"] = "close"; // drain keep-alive clients
        return headers;
      },

      send(this: Api, req: IncomingMessage, res: ServerResponse, { status, body, text, follow, headers }: HttpResponse): void {
        const exchange = exchangeOf(res);
        if (res.headersSent || res.destroyed || exchange.isOver || exchange.readyAt !== undefined) return;
        const isHead = req.method === "HEAD";
        // Before the response head is written, since opening a stream may be refused.
        if (follow && !isHead) exchange.stream = this.streams.open(res, follow, bearerToken(req.headers.authorization) ?? "", exchange);
        const { stream } = exchange;
        const content = body === undefined ? text : JSON.stringify(body);
        const bytes = content === undefined ? 0 : Buffer.byteLength(content);
        // A read may be repeated. The result of a change is always sent: its request must not seem to have been refused.
        if (bytes >= LARGE_BYTES && req.method === "GET" && this.connections.isOverShare(exchange, bytes)) {
          this.sendFailure(req, res, overShare());
          return;
        }
        const head = {
          ...this.baseHeaders(exchange),
          "Cache-Control": req.headers.authorization === undefined ? "no-cache" : "no-store",
          ...(content !== undefined && {
            "Content-Type": "application/json; charset=utf-8",
            "Content-Length": bytes,
          }),
          ...(basePath === "" || headers === undefined ? headers : withBasePath(headers, basePath)),
        };
        if (stream !== undefined && follow !== undefined) {
          res.writeHead(status, head);
          this.connections.markStream(exchange);
          stream.begin();
          return;
        }
        this.connections.markReady(exchange, isHead ? 0 : bytes);
        const write = (): void => {
          // One writeHead call is faster than setting each header.
          if (!res.destroyed && !exchange.isOver) res.writeHead(status, head).end(isHead ? undefined : content);
        };
        if (isHead || bytes < LARGE_BYTES) write();
        else writeInTurn(this.turns, exchange, write);
      },

      sendProblem(
        this: Api,
        req: IncomingMessage,
        res: ServerResponse,
        details: ProblemDetails,
        headers: Record<string, string> = {},
      ): void {
        this.send(req, res, {
          status: details.status,
          body: details,
          headers: {
            "Content-Type": "application/problem+json",
            "Cache-Control": "no-store",
            ...problemHeaders(details),
            ...headers,
          },
        });
      },

      /** Responds to an unknown path, or to a known path with a method it does not support. */
      sendNoRoute(this: Api, req: IncomingMessage, res: ServerResponse): void {
        const path = pathOf(req);
        const methods = this.methodsOf(path);
        const { id } = exchangeOf(res);
        if (methods.length === 0) {
          // A proxy may have removed the base path.
          const detail = basePath !== "" && isOutside(path) ? `all paths begin with ${basePath}/` : "no resource has this path";
          this.sendProblem(req, res, problemDetails("NOT_FOUND", id, basePath, detail));
          return;
        }
        const detail = `${req.method ?? "this method"} is not supported on this path`;
        this.sendProblem(req, res, problemDetails("METHOD_NOT_ALLOWED", id, basePath, detail), { Allow: methods.join(", ") });
      },

      /** Sends any route's error as problem+json, unless the request is a form whose errors have a format of their own. */
      sendFailure(this: Api, req: IncomingMessage, res: ServerResponse, error: unknown): void {
        const { id, form } = exchangeOf(res);
        const known = translated(error);
        const response = form?.refusal(known);
        if (response !== undefined) {
          this.send(req, res, response);
          return;
        }
        const details = toProblem(known, id, basePath);
        if (details.code === "INTERNAL_ERROR")
          withRequestId(details.request_id, () => {
            this.logger.error(`${req.method ?? ""} ${pathOf(req).slice(0, 200)} failed:`, error);
          });
        this.sendProblem(req, res, details, problemHeaders(details, error));
      },
    },
  };
  return schema as unknown as Partial<ServiceSchema>; // mixins are declared for a plain `this`
}
