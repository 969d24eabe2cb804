import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Context, Service } from "moleculer";
import type { Meta } from "../../broker/contract";
import type { ProblemDetails } from "../../contracts/api";
import type { Caller } from "../../contracts/users";
import type { TokenVerifier } from "./auth/token-verifier";
import type { FairSlots } from "../../mixins/fair-queue";
import type { ClientAddress } from "./http/client-address";
import type { Connections } from "./connections/connections";
import type { Cors } from "./http/cors";
import type { Doors } from "./connections/doors";
import type { Exchange } from "./connections/exchange";
import type { BatchedCalls } from "./batched-calls";
import type { Lanes } from "./routing/lanes";
import type { LoopTurns } from "./connections/loop-turns";
import type { RequestMetrics } from "./http/metrics";
import type { RateLimit } from "./http/rate-limit";
import type { Reply, Route } from "./routing/route";
import type { Streams } from "./streams";

/** A request as moleculer-web passes it to its route. */
export type RoutedRequest = IncomingMessage & {
  $alias: Alias;
  $ctx: Context<unknown, Meta>;
  $params: { params?: Record<string, string>; query?: Record<string, unknown> };
  body?: unknown;
};

/** The part of a moleculer-web alias that is used here; `spec` is added by this service. */
export interface Alias {
  method: string;
  spec: Route;
  /** As in `ROUTES`. */
  fullPath: string;
  re: RegExp;
  /** The moleculer-web route, whose settings all its aliases share. */
  route: unknown;
}

interface Found {
  alias: Alias;
  params: Record<string, string>;
}

/** The gateway service, as its mixins and handlers see it. */
export type Api = Service & {
  server: Server & { requireHostHeader: boolean };
  httpHandler(req: IncomingMessage, res: ServerResponse): void;
  aliases: Alias[];
  verifier: TokenVerifier;
  batched: BatchedCalls;
  connections: Connections;
  admission: FairSlots;
  turns: LoopTurns;
  doors: Doors;
  lanes: Lanes;
  address: ClientAddress;
  cors: Cors;
  rateLimit: RateLimit;
  passwordRate: RateLimit;
  metrics?: RequestMetrics;
  streams: Streams;
  send(req: IncomingMessage, res: ServerResponse, reply: Reply): void;
  send404(req: IncomingMessage, res: ServerResponse): void;
  methodsOf(path: string): string[];
  baseHeaders(exchange: Exchange): Record<string, string>;
  begin(exchange: Exchange): void;
  refuse(exchange: Exchange, refusal: unknown): void;
  finished(exchange: Exchange): void;
  checkShare(exchange: Exchange): void;
  authenticated(req: IncomingMessage, auth: "user" | "admin"): Promise<Caller>;
  take(exchange: Exchange): Promise<void>;
  routed(exchange: Exchange): Promise<void>;
  readProduct(exchange: Exchange, id: string): Promise<void>;
  resolveAlias(url: string, method: string): Found | false;
  /** Reads the body, authenticates, and calls the alias's handler. Resolves when the response ends. */
  routeHandler(ctx: Context, route: unknown, req: IncomingMessage, res: ServerResponse, found: Found): Promise<unknown>;
  errorHandler(req: IncomingMessage, res: ServerResponse, error: unknown): void;
  sendProblem(req: IncomingMessage, res: ServerResponse, details: ProblemDetails, headers?: Record<string, string>): void;
};
