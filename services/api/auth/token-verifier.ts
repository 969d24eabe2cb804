import { createPublicKey, type KeyObject } from "node:crypto";
import jwt from "jsonwebtoken";
import { LRUCache } from "lru-cache";
import { problem } from "../../../broker/errors";
import { matches } from "../../../broker/validator";
import { AUDIENCE, Claims, ISSUER, type Caller, type Jwk } from "../../../contracts/users";
import { Revocations } from "./revocations";
import { SeenSessions } from "./seen-sessions";

/** Allowed clock difference between nodes, in seconds. */
const CLOCK_TOLERANCE_SECONDS = 5;
/** Minimum time between two fetches of the keys, in ms: tokens with made-up key ids must not put load on the users service. */
const REFETCH_MS = 5_000;
const MAX_REMEMBERED = 10_000;

/** What the verifier needs from the users service. */
interface Issuer {
  keys(): Promise<readonly Jwk[]>;
  revocations: ConstructorParameters<typeof Revocations>[0];
  checkSessions: ConstructorParameters<typeof SeenSessions>[0];
}

/**
 * Verifies access tokens with the public keys of the users service, then checks for ended or unknown sessions and changed roles, at no
 * extra call per request. Keys are fetched once, and again when the users service reports new ones. A verified token is cached until it
 * expires, since verifying it again would cost 30 times as much.
 */
export class TokenVerifier {
  private readonly keys = new Map<string, KeyObject>();
  private fetchedAt = -Infinity;
  private fetching: Promise<void> | undefined;
  private readonly verified = new LRUCache<string, { caller: Required<Caller>; exp: number }>({ max: MAX_REMEMBERED });
  private readonly revocations: Revocations;
  private readonly seen: SeenSessions;

  constructor(
    private readonly issuer: Issuer,
    log: (what: string, error: unknown) => void,
  ) {
    this.revocations = new Revocations(
      issuer.revocations,
      (kids) => {
        this.dropUnlistedKeys(kids);
      },
      (error) => {
        log("The users service does not report ended sessions; tokens remain valid meanwhile:", error);
      },
    );
    this.seen = new SeenSessions(issuer.checkSessions, (caller, role, until) => {
      this.revocations.setRole(caller, role, until);
    });
  }

  stop(): void {
    this.seen.stop();
  }

  /** @throws UNAUTHENTICATED, or SERVICE_UNAVAILABLE while no keys can be fetched */
  async verify(token: string): Promise<Caller> {
    await this.revocations.refresh();
    const caller = this.fromCache(token) ?? (await this.check(token));
    if (this.hasSessionEnded(caller)) throw unauthenticated();
    return this.revocations.withRole(caller);
  }

  /** Polls for ended sessions on behalf of open streams, which are checked between verifications. Bounded, never rejects. */
  async refresh(): Promise<void> {
    await this.revocations.refresh();
  }

  /** Whether a caller verified earlier still has an active session and the same role. */
  isCurrent(caller: Caller): boolean {
    return !this.hasSessionEnded(caller) && this.revocations.withRole(caller) === caller;
  }

  private hasSessionEnded(caller: Caller): boolean {
    const { session } = caller;
    return session !== undefined && (this.revocations.hasEnded(session) || this.seen.isUnknown({ ...caller, session }));
  }

  private fromCache(token: string): Required<Caller> | undefined {
    const known = this.verified.get(token);
    return known !== undefined && known.exp + CLOCK_TOLERANCE_SECONDS > Date.now() / 1000 ? known.caller : undefined;
  }

  private async check(token: string): Promise<Required<Caller>> {
    const kid = keyId(token);
    const key = kid === undefined ? undefined : await this.key(kid);
    if (key === undefined) throw unauthenticated();
    const claims = this.claims(token, key);
    const caller = { id: claims.sub, role: claims.role, session: claims.sid };
    this.verified.set(token, { caller, exp: claims.exp });
    return caller;
  }

  /** Drops keys that are no longer listed, and then also all cached tokens. New keys are fetched when a token names them. */
  private dropUnlistedKeys(kids: readonly string[]): void {
    if (kids.some((kid) => !this.keys.has(kid))) this.fetchedAt = -Infinity;
    this.forgetAllBut(kids);
  }

  private forgetAllBut(kids: readonly string[]): void {
    const withdrawn = [...this.keys.keys()].filter((kid) => !kids.includes(kid));
    for (const kid of withdrawn) this.keys.delete(kid);
    if (withdrawn.length > 0) this.verified.clear();
  }

  private claims(token: string, key: KeyObject) {
    let claims: unknown;
    try {
      // Allow exactly one algorithm: a public key must never be used as an HMAC secret (RFC 8725, 3.1).
      claims = jwt.verify(token, key, {
        algorithms: ["RS256"],
        issuer: ISSUER,
        audience: AUDIENCE,
        clockTolerance: CLOCK_TOLERANCE_SECONDS,
      });
    } catch {
      throw unauthenticated(); // the reason is of no use to the client
    }
    // jsonwebtoken accepts tokens without an expiry or a subject.
    if (!matches(Claims, claims)) throw unauthenticated();
    return claims;
  }

  private async key(kid: string): Promise<KeyObject | undefined> {
    if (!this.keys.has(kid) && Date.now() - this.fetchedAt >= REFETCH_MS) {
      this.fetching ??= this.fetch().finally(() => (this.fetching = undefined));
      await this.fetching;
    }
    return this.keys.get(kid);
  }

  private async fetch(): Promise<void> {
    // Except for the first fetch, set before the call succeeds: made-up key ids must not cause load while users is unavailable.
    if (this.keys.size > 0) this.fetchedAt = Date.now();
    const keys = await this.issuer.keys();
    this.forgetAllBut(keys.map(({ kid }) => kid));
    // A key's id is its thumbprint, so a known id always has the same key.
    for (const jwk of keys) if (!this.keys.has(jwk.kid)) this.keys.set(jwk.kid, createPublicKey({ key: jwk, format: "jwk" }));
    this.fetchedAt = Date.now();
  }
}

/**
 * The id of the key that a token claims to be signed with (RFC 7515, section 4.1.4). `crit` lists extensions that must be
 * understood (4.1.11); none is supported, so such a token is refused. The rest of the header is ignored.
 */
function keyId(token: string): string | undefined {
  try {
    const header: unknown = JSON.parse(Buffer.from(token.split(".")[0] ?? "", "base64url").toString());
    if (typeof header !== "object" || header === null || "crit" in header) return undefined;
    const isOurs = "alg" in header && header.alg === "RS256" && "kid" in header;
    return isOurs && typeof header.kid === "string" ? header.kid : undefined;
  } catch {
    return undefined; // not JSON, so not a token
  }
}

/** The token of an `Authorization: Bearer` header (RFC 6750, section 2.1); undefined if there is none. */
export function bearerToken(header: string | undefined): string | undefined {
  return /^Bearer +([A-Za-z0-9._~+/-]+=*) *$/i.exec(header ?? "")?.[1];
}

/** @param hasToken false if the request has no token, which is then not called invalid (RFC 6750, 3.1) */
export const unauthenticated = (hasToken = true) => problem("UNAUTHENTICATED", "a valid access token is needed", { hasToken });
