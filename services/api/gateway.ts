import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Context, Service } from "moleculer";
import type { Meta } from "../../broker/contract";
import type { ProblemDetails } from "../../contracts/api";
import type { TokenVerifier } from "./access";
import type { Admission } from "./admission";
import type { ClientAddress } from "./client-address";
import type { Gather } from "./gather";
import type { RequestMetrics } from "./metrics";
import type { RateLimit } from "./rate-limit";
import type { Reply, Route } from "./route";
import type { Streams } from "./streams";

/** A request as moleculer-web hands it on to its route. */
export type RoutedRequest = IncomingMessage & {
  $alias: Alias;
  $ctx: Context<unknown, Meta>;
  $params: { params?: Record<string, string>; query?: Record<string, unknown> };
  body?: unknown;
};

/** The part of a moleculer-web alias that is used here; `spec` is ours. */
export interface Alias {
  method: string;
  spec: Route;
  /** As in the table of routes. */
  fullPath: string;
  re: RegExp;
}

/** The service, as its parts see it. */
export type Api = Service & {
  server: Server & { requireHostHeader: boolean };
  httpHandler(req: IncomingMessage, res: ServerResponse): Promise<void>;
  aliases: Alias[];
  verifier: TokenVerifier;
  gather: Gather;
  admission: Admission;
  address: ClientAddress;
  rateLimit: RateLimit;
  metrics?: RequestMetrics;
  streams: Streams;
  send(req: IncomingMessage, res: ServerResponse, reply: Reply): void;
  send404(req: IncomingMessage, res: ServerResponse): void;
  methodsOf(path: string): string[];
  baseHeaders(req: IncomingMessage): Record<string, string>;
  take(req: IncomingMessage, res: ServerResponse, id: string): Promise<void>;
  readProduct(req: IncomingMessage, res: ServerResponse, id: string): Promise<void>;
  errorHandler(req: IncomingMessage, res: ServerResponse, error: unknown): void;
  sendProblem(req: IncomingMessage, res: ServerResponse, details: ProblemDetails, headers?: Record<string, string>): void;
};
