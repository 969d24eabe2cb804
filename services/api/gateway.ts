import type { IncomingMessage, ServerResponse } from "node:http";
import type { ProblemDetails } from "../../contracts/api";
import type { Caller } from "../../contracts/users";
import type { TokenVerifier } from "./auth/token-verifier";
import type { FairSlots } from "../../mixins/fair-queue";
import type { ClientAddress } from "./http/client-address";
import type { Connections } from "./connections/connections";
import type { Cors } from "./http/cors";
import type { Exchange } from "./connections/exchange";
import type { BatchedCalls } from "./batched-calls";
import type { Lanes } from "./routing/lanes";
import type { LoopTurns } from "./connections/loop-turns";
import type { RequestMetrics } from "./http/metrics";
import type { RateLimit } from "./http/rate-limit";
import type { HttpResponse } from "./routing/route";
import type { Activity } from "./operations/activity";
import type { Streams } from "./streams/streams";
import type { Web } from "./web.mixin";

/** The gateway service, as its mixins and handlers see it. */
export type Api = Web & {
  verifier: TokenVerifier;
  batched: BatchedCalls;
  connections: Connections;
  admission: FairSlots;
  turns: LoopTurns;
  /** Turns for decoding compressed bodies. */
  decoding: FairSlots;
  lanes: Lanes;
  address: ClientAddress;
  cors: Cors;
  rateLimit: RateLimit;
  passwordRate: RateLimit;
  metrics?: RequestMetrics;
  /** For operations views. */
  activity: Activity;
  streams: Streams;
  send(req: IncomingMessage, res: ServerResponse, response: HttpResponse): void;
  sendNoRoute(req: IncomingMessage, res: ServerResponse): void;
  sendFailure(req: IncomingMessage, res: ServerResponse, error: unknown): void;
  sendProblem(req: IncomingMessage, res: ServerResponse, details: ProblemDetails, headers?: Record<string, string>): void;
  baseHeaders(exchange: Exchange): Record<string, string>;
  begin(exchange: Exchange): void;
  refuse(exchange: Exchange, refusal: unknown): void;
  onFinished(exchange: Exchange): void;
  checkShare(exchange: Exchange): void;
  authenticated(req: IncomingMessage, auth: "user" | "admin"): Promise<Caller>;
  take(exchange: Exchange): Promise<void>;
  routed(exchange: Exchange): Promise<void>;
};
