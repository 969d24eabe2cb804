import { errorOf, ShopError } from "./problem.js";
import { retry, type Fetch } from "./retry.js";
import type { components } from "./schema.js";

/** The tokens of a login. */
export interface Tokens {
  readonly access_token: string;
  readonly refresh_token: string;
  /** When to replace the access token, in milliseconds since 1970, by the clock of this computer. */
  readonly refresh_at: number;
}

/** Where the tokens are kept. Several tabs may share a store: it is read before each use. */
export interface TokenStore {
  read(): Tokens | undefined;
  /** @param tokens undefined when the session has ended */
  write(tokens: Tokens | undefined): void;
}

/** Keeps the tokens in memory, where a script of another origin can't read them. They are gone when the page is reloaded. */
export function memoryStore(): TokenStore {
  let kept: Tokens | undefined;
  return {
    read: () => kept,
    write: (tokens) => {
      kept = tokens;
    },
  };
}

export interface Credentials {
  email: string;
  password: string;
}

/** An access token is replaced this long before it expires, in ms, or after half of its life: it must not expire on its way. */
const EARLY_MS = 30_000;
/** Time for one attempt, in ms. The shop responds within five seconds, and repeats the successor of a refresh token for ten. */
const ATTEMPT_MS = 6_000;

/** A login, and its access token, which is replaced in time. */
export class Session {
  private refreshing: Promise<string | undefined> | undefined;
  /** Counts logins and logouts: a response to an earlier one has no effect. */
  private turn = 0;

  /**
   * @param url of the shop, without a slash at the end
   * @param onEnd called when the shop does not accept the refresh token any longer: the user has to log in again
   */
  constructor(
    private readonly url: string,
    private readonly fetch: Fetch,
    private readonly retryForMs: number,
    private readonly store: TokenStore,
    private readonly onEnd: () => void,
  ) {}

  /** @throws ShopError with the code INVALID_CREDENTIALS, TOO_MANY_REQUESTS, … */
  async login(credentials: Credentials): Promise<void> {
    const turn = ++this.turn;
    const response = await this.post("/token", credentials);
    if (!response.ok) throw await errorOf(response);
    const tokens = await tokensOf(response);
    if (turn === this.turn) this.store.write(tokens);
  }

  /** Ends the session here, and at the shop. */
  async logout(): Promise<void> {
    this.turn++;
    const tokens = this.store.read();
    this.store.write(undefined);
    if (tokens === undefined) return;
    const response = await this.post("/logout", { refresh_token: tokens.refresh_token });
    if (!response.ok) throw await errorOf(response);
  }

  /** An access token that is valid, as far as is known here; undefined without a login. */
  async accessToken(): Promise<string | undefined> {
    const tokens = this.store.read();
    if (tokens === undefined || Date.now() < tokens.refresh_at) return tokens?.access_token;
    return this.refresh(tokens.access_token).catch(() => tokens.access_token); // it may be valid for a while
  }

  /**
   * Replaces an access token. However many requests need it at the same moment, the refresh token is used once.
   * @param refused the access token to be replaced: if its user has a newer one already, that is returned
   * @returns undefined if the session has ended, or another user has logged in
   * @throws if the shop can't be reached; the session goes on
   */
  async refresh(refused: string): Promise<string | undefined> {
    const tokens = this.store.read();
    if (tokens === undefined || tokens.access_token !== refused) return this.newerThan(refused);
    this.refreshing ??= this.renew(tokens).finally(() => {
      this.refreshing = undefined;
    });
    return this.refreshing;
  }

  private async renew(old: Tokens): Promise<string | undefined> {
    // Between two attempts there may have been a logout, or a refresh by another tab: a used refresh token must not be sent late.
    const isCurrent = (): boolean => this.store.read()?.refresh_token === old.refresh_token;
    const response = await this.post("/token/refresh", { refresh_token: old.refresh_token }, isCurrent);
    if (!isCurrent()) return this.newerThan(old.access_token);
    if (response.status === 401) {
      this.store.write(undefined);
      this.onEnd();
      return undefined;
    }
    if (!response.ok) throw await errorOf(response);
    const tokens = await tokensOf(response);
    this.store.write(tokens);
    return tokens.access_token;
  }

  /** The current access token, unless it is another user's: a request must not be sent in somebody else's name. */
  private newerThan(refused: string): string | undefined {
    const current = this.store.read()?.access_token;
    return current !== undefined && subjectOf(current) === subjectOf(refused) ? current : undefined;
  }

  /** @param isWanted checked before each attempt; if it is not, there is no further one, and the result is an error */
  private post(path: string, body: object, isWanted = (): boolean => true): Promise<Response> {
    const send = (): Promise<Response> =>
      this.fetch(
        new Request(this.url + path, {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify(body),
          signal: AbortSignal.timeout(ATTEMPT_MS),
        }),
      );
    return retry(() => (isWanted() ? send() : Promise.resolve(Response.error())), this.retryForMs);
  }
}

/** @throws ShopError if it is something else, such as a proxy's page */
async function tokensOf(response: Response): Promise<Tokens> {
  const body: unknown = await response.json().catch(() => undefined);
  if (!isTokenPair(body)) throw new ShopError(response.status, undefined);
  const lifeMs = body.expires_in * 1_000;
  const refresh_at = Date.now() + Math.max(lifeMs - EARLY_MS, lifeMs / 2);
  return { access_token: body.access_token, refresh_token: body.refresh_token, refresh_at };
}

type TokenPair = Pick<components["schemas"]["TokenPair"], "access_token" | "refresh_token" | "expires_in">;

const isTokenPair = (body: unknown): body is TokenPair =>
  typeof body === "object" &&
  body !== null &&
  "access_token" in body &&
  typeof body.access_token === "string" &&
  "refresh_token" in body &&
  typeof body.refresh_token === "string" &&
  "expires_in" in body &&
  typeof body.expires_in === "number";

/** The part of a JWT with its claims names the user; it is compared as a whole claim, and not trusted for anything else. */
function subjectOf(token: string): unknown {
  const payload = (token.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/");
  try {
    const claims: unknown = JSON.parse(atob(payload));
    return typeof claims === "object" && claims !== null && "sub" in claims ? claims.sub : token;
  } catch {
    return token; // not readable, so it equals itself only
  }
}
