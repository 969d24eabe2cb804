import type { IncomingMessage } from "node:http";
import type { Config } from "../../../config";
import { METHODS } from "./request";

/*
 * What pages of other origins may send and read, by the CORS protocol of WHATWG Fetch. Origins are matched exactly; outside production,
 * every port of localhost is allowed as well, where front ends are developed.
 */

const EXPOSED = "ETag, Link, Location, Retry-After, X-Request-Id, Idempotent-Replayed";

/** The same for every path: a path responds with 405 to a method that it does not support. */
const PERMISSIONS = {
  "Access-Control-Allow-Methods": METHODS.join(", "),
  "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, X-Request-Id",
  "Access-Control-Max-Age": "600",
};

/** A cache must not show one origin's response to another. */
const VARY = { Vary: "Origin" };
const LOCALHOST = /^http:\/\/localhost(:\d{1,5})?$/;
/** Maximum number of refused origins that a gateway logs, each once, and the characters of each: clients choose them. */
const MAX_LOGGED = 100;
const MAX_LOGGED_LENGTH = 200;

type Headers = Readonly<Record<string, string>>;
type Settings = Pick<Config, "corsOrigins" | "production">;

export class Cors {
  private readonly isOn: boolean;
  private readonly logged = new Set<string>();

  constructor(
    private readonly settings: Settings,
    private readonly log: (line: string) => void,
  ) {
    this.isOn = settings.corsOrigins.length > 0 || !settings.production;
  }

  /** Headers of every response. For origins that are not allowed, browsers withhold the response from the page. */
  headers({ headers: { origin } }: Pick<IncomingMessage, "headers">): Headers {
    if (!this.isOn) return {};
    if (origin === undefined) return VARY;
    if (this.isAllowed(origin)) return { ...VARY, "Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": EXPOSED };
    this.logOnce(origin);
    return VARY;
  }

  isPreflight({ method, headers }: IncomingMessage): boolean {
    return this.isOn && method === "OPTIONS" && headers.origin !== undefined && headers["access-control-request-method"] !== undefined;
  }

  /** Additional headers of the response to a preflight. */
  preflightHeaders({ headers: { origin = "" } }: IncomingMessage): Headers {
    return this.isAllowed(origin) ? PERMISSIONS : {};
  }

  private isAllowed(origin: string): boolean {
    return this.settings.corsOrigins.includes(origin) || (!this.settings.production && LOCALHOST.test(origin));
  }

  /** A developer whose page is refused sees only that the browser withholds the response. */
  private logOnce(origin: string): void {
    if (this.logged.size >= MAX_LOGGED || this.logged.has(origin)) return;
    this.logged.add(origin);
    this.log(`CORS: pages of ${origin.slice(0, MAX_LOGGED_LENGTH)} may not read responses. To allow them, add the origin to CORS_ORIGINS.`);
  }
}
