import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Context, Service } from "moleculer";
import type { Meta } from "../../broker/contract";
import type { ProblemDetails } from "../../contracts/api";
import type { Caller } from "../../contracts/users";
import type { TokenVerifier } from "./access";
import type { FairSlots } from "../../mixins/fair-queue";
import type { ClientAddress } from "./client-address";
import type { Connections } from "./connections";
import type { Doors } from "./doors";
import type { Exchange } from "./exchange";
import type { Gather } from "./gather";
import type { Lanes } from "./lanes";
import type { LoopTurns } from "./loop-turns";
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
  /** What it has in common with other aliases. */
  route: unknown;
}

interface Found {
  alias: Alias;
  params: Record<string, string>;
}

/** The service, as its parts see it. */
export type Api = Service & {
  server: Server & { requireHostHeader: boolean };
  httpHandler(req: IncomingMessage, res: ServerResponse): void;
  aliases: Alias[];
  verifier: TokenVerifier;
  gather: Gather;
  connections: Connections;
  admission: FairSlots;
  turns: LoopTurns;
  doors: Doors;
  lanes: Lanes;
  address: ClientAddress;
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
  over(exchange: Exchange): void;
  checkShare(exchange: Exchange): void;
  authenticated(req: IncomingMessage, auth: "user" | "admin"): Promise<Caller>;
  take(exchange: Exchange): Promise<void>;
  routed(exchange: Exchange): Promise<void>;
  readProduct(exchange: Exchange, id: string): Promise<void>;
  resolveAlias(url: string, method: string): Found | false;
  /** Reads the body, authenticates, and calls the handler of the alias; ends when the response does. */
  routeHandler(ctx: Context, route: unknown, req: IncomingMessage, res: ServerResponse, found: Found): Promise<unknown>;
  errorHandler(req: IncomingMessage, res: ServerResponse, error: unknown): void;
  sendProblem(req: IncomingMessage, res: ServerResponse, details: ProblemDetails, headers?: Record<string, string>): void;
};
