import createClient, { type Client } from "openapi-fetch";
import { follow, type FollowOptions, type OrderEvent } from "./follow.js";
import { addKey, codeOf, discard, retrying, type Fetch } from "./retry.js";
import type { components, paths } from "./schema.js";
import { memoryStore, Session, type Credentials, type TokenStore } from "./session.js";

export { dataOf, ShopError, type Problem } from "./problem.js";
export { memoryStore, type Credentials, type TokenStore, type Tokens } from "./session.js";
export type { FollowOptions, OrderEvent } from "./follow.js";
export type { components, operations, paths } from "./schema.js";
export type Product = components["schemas"]["Product"];
export type Order = components["schemas"]["Order"];

export interface ShopOptions {
  /** Address of the gateway, with its BASE_PATH if it has one. */
  url: string;
  /** Where the tokens are kept; by default in memory. */
  store?: TokenStore;
  /** Called when the session has ended and the user must log in again. */
  onSessionEnd?: () => void;
  /** Time after which a request that failed for a moment is not retried any longer, in ms; 0: never. */
  retryForMs?: number;
  /** In place of the global function. */
  fetch?: Fetch;
}

/** A shop, and possibly a login. */
export interface Shop {
  /** Every route of the OpenAPI document, typed: `shop.api.GET("/products", { params: { query: { q: "lamp" } } })`. */
  readonly api: Client<paths>;
  /** Whether there is a login, as far as is known here. */
  readonly isLoggedIn: boolean;
  /** @throws ShopError */
  login(credentials: Credentials): Promise<void>;
  /** @throws ShopError */
  logout(): Promise<void>;
  /** An order's history, and then its changes as they happen. @throws ShopError */
  follow(orderId: string, options?: FollowOptions): AsyncGenerator<OrderEvent, void>;
}

const RETRY_FOR_MS = 15_000;

/**
 * A client of the shop. With a login, requests carry its access token, which is refreshed when necessary, once for all of them. Requests that
 * failed for a moment are retried; those that change something take effect once, by an `Idempotency-Key`.
 */
export function createShop({
  url,
  store = memoryStore(),
  onSessionEnd = () => undefined,
  retryForMs = RETRY_FOR_MS,
  fetch = (request) => globalThis.fetch(request),
}: ShopOptions): Shop {
  const baseUrl = url.replace(/\/+$/, "");
  const session = new Session(baseUrl, fetch, retryForMs, store, onSessionEnd);
  const authorized = authorizing(retrying(fetch, retryForMs), session);
  return {
    api: createClient<paths>({ baseUrl, fetch: authorized }),
    get isLoggedIn() {
      return store.read() !== undefined;
    },
    login: (credentials) => session.login(credentials),
    logout: () => session.logout(),
    follow: (orderId, options = {}) => follow(`${baseUrl}/orders/${encodeURIComponent(orderId)}/events`, authorized, options),
  };
}

/** Adds the access token to requests. One that the shop refuses, since it has expired or its key was withdrawn, is replaced once. */
const authorizing =
  (send: Fetch, session: Session): Fetch =>
  async (request) => {
    addKey(request);
    if (request.headers.has("Authorization")) return send(request);
    const token = await session.accessToken();
    if (token === undefined) return send(request);
    const response = await send(withToken(request, token));
    if (response.status !== 401 || (await codeOf(response)) !== "UNAUTHENTICATED") return response;
    const renewed = await session.refresh(token);
    if (renewed === undefined) return response;
    discard(response);
    return send(withToken(request, renewed));
  };

function withToken(request: Request, token: string): Request {
  const copy = request.clone();
  copy.headers.set("Authorization", `Bearer ${token}`);
  return copy;
}
