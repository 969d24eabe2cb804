import { Type, type Static } from "@sinclair/typebox";
import { action, closed, health, Id, named, nullable, Text, Timestamp } from "./contract";

export const Role = Type.Union([Type.Literal("user"), Type.Literal("admin")], {
  title: "Role",
  description: "An `admin` may also use the routes for admins, and act on products and orders of others.",
});
export type Role = Static<typeof Role>;

/** The calling user, as the gateway read it from the token; passed on in `ctx.meta.user`. */
export interface Caller {
  readonly id: string;
  readonly role: Role;
  /** The session that the token belongs to. */
  readonly session?: string;
}

const Email = Type.String({ format: "idn-email", maxLength: 254 });

/** At most 72 bytes of UTF-8 without NUL: bcrypt ignores anything after that. No composition rules (NIST SP 800-63B, 3.1.1.2). */
const Password = (minLength: number) => Type.String({ minLength, format: "password", maxLength: 72 });

export const User = named("User", "An account, as its owner sees it.", { id: Id, email: Email, role: Role, created_at: Timestamp });
export type User = Static<typeof User>;

export const Jwk = named("Public key", "A public signing key (RFC 7517, section 4).", {
  kty: Type.Literal("RSA"),
  n: Type.String(),
  e: Type.String(),
  kid: Type.String(),
  alg: Type.Literal("RS256"),
  use: Type.Literal("sig"),
});
export type Jwk = Static<typeof Jwk>;

const SessionId = Id;

/** The claims of an access token (RFC 7519, section 4) that are read here. */
export const Claims = Type.Object({
  sub: Id,
  role: Role,
  sid: SessionId,
  jti: Type.String({ minLength: 1 }),
  iat: Type.Integer(),
  exp: Type.Integer(),
});

/** The `iss` and `aud` of every access token, which the gateway requires (RFC 8725, 3.8 and 3.9). */
export const ISSUER = "moleculer-shop/users";
export const AUDIENCE = "moleculer-shop";

/** The client's address as determined by the gateway: for rate limits, fair queues and the audit log. */
const Address = Type.Optional(Type.String({ maxLength: 64 }));

/**
 * Creates an account. The same registration, retried within 15 minutes and before the first login, returns the same account: after a 503
 * the client can't know whether it was created. `EMAIL_TAKEN` for any other; that counts as a failed login.
 */
export const register = action("users.register", {
  params: named("Registration", "A new account.", { email: Email, password: Password(8), address: Address }),
  result: User,
  timeoutMs: 4_000,
});

export const Tokens = named("Token pair", "The tokens of a session (RFC 6749, section 5.1).", {
  access_token: Type.String({ description: "For the header `Authorization`, after `Bearer`." }),
  token_type: Type.Literal("bearer"),
  expires_in: Type.Integer({ minimum: 1, description: "The lifetime of the access token in seconds." }),
  refresh_token: Type.String({ description: "For one refresh only." }),
});
export type Tokens = Static<typeof Tokens>;

const RefreshToken = Text({ minLength: 1, maxLength: 4_096 });
const RefreshParams = named("Refresh token", "The newest refresh token of a session.", { refresh_token: RefreshToken, address: Address });

/**
 * Logs in: opens a session. `INVALID_CREDENTIALS` for an unknown e-mail and for a wrong password, in the same time. `TOO_MANY_REQUESTS` after
 * too many of these within a minute: for this account from this `address`, from this `address`, or for this account from all addresses. The
 * last limit does not apply to an address from which the account has logged in before.
 */
export const token = action("users.token", {
  params: named("Credentials", "What a user logs in with.", {
    email: Text({ minLength: 1, maxLength: 254, description: "In upper or lower case." }),
    password: Password(1),
    address: Address,
  }),
  result: Tokens,
  timeoutMs: 4_000,
});

/**
 * New tokens for a refresh token, which is valid once. If it is used again within REFRESH_GRACE, the new refresh token is the same one;
 * later use ends its session. Any other token gets INVALID_REFRESH_TOKEN.
 */
export const refresh = action("users.refresh", { params: RefreshParams, result: Tokens });

/** Ends the session of a refresh token, including its access tokens; does nothing if the token is unknown. */
export const logout = action("users.logout", {
  params: RefreshParams,
  result: closed({}),
  idempotent: true,
});

/**
 * Changes the caller's password and ends all their other sessions. `INVALID_CREDENTIALS` if the current password is wrong,
 * `TOO_MANY_REQUESTS` after too many of these by the same user within a minute.
 */
export const changePassword = action("users.changePassword", {
  params: named("Password change", "A new password, and the current one as proof.", {
    current_password: Password(1),
    new_password: Password(8),
    address: Address,
  }),
  result: closed({}),
  timeoutMs: 4_000,
});

export const me = action("users.me", { params: closed({}), result: User, idempotent: true });

/** The keys that verify access tokens. */
export const jwks = action("users.jwks", {
  params: closed({}),
  result: named("Key set", "The public keys that are valid now (RFC 7517, section 5).", { keys: Type.Array(Jwk) }),
  idempotent: true,
  timeoutMs: 1_500,
});

const EndedSession = closed({ session: SessionId, until: Type.Integer() });
/** `until`: when the last of its access tokens expires, seconds since 1970. */
export type EndedSession = Static<typeof EndedSession>;

/** The end of a page of ended sessions: a time to the microsecond as the database writes it, and the id. */
const PageEnd = closed({ ended_at: Type.String({ pattern: "^[0-9T:.Z-]{20,30}$" }), session: SessionId });
export type PageEnd = Static<typeof PageEnd>;

/** A user's current role; `until`: when the last access token with another role expires, seconds since 1970. */
const ChangedRole = closed({ user: Id, role: Role, until: Type.Integer() });
export type ChangedRole = Static<typeof ChangedRole>;

/**
 * What tokens themselves don't show: which keys are published now, and the sessions that have ended and the roles that have changed `since`
 * the `at` of an earlier response. If there is a `next`, the caller should request the entries `after` it at once.
 */
export const revocations = action("users.revocations", {
  params: closed({ since: Type.Optional(Timestamp), after: Type.Optional(PageEnd) }),
  result: closed({
    at: Timestamp,
    next: nullable(PageEnd),
    kids: Type.Array(Type.String()),
    ended: Type.Array(EndedSession),
    roles: Type.Optional(Type.Array(ChangedRole)),
  }),
  idempotent: true,
  timeoutMs: 500,
});

/** Maximum number of sessions in one call. */
export const SESSIONS_PER_CALL = 1_000;

const Sessions = Type.Array(SessionId, { maxItems: SESSIONS_PER_CALL });

/**
 * Detects which sessions and roles changed because user_db was restored to an earlier state. Of these sessions, returns those that are unknown,
 * and those of users who are admins now. `until`: when the last access token with another role expires, seconds since 1970.
 */
export const checkSessions = action("users.checkSessions", {
  params: closed({ sessions: Type.Array(SessionId, { minItems: 1, maxItems: SESSIONS_PER_CALL }) }),
  result: closed({ unknown: Sessions, admins: Sessions, until: Type.Integer() }),
  idempotent: true,
  timeoutMs: 500,
});

/**
 * Creates a signing key. It is published at once and signs from ten minutes later; the previous one stays published while its tokens are
 * valid. `at_once`, for leaked keys: all other keys are withdrawn, and every access token becomes invalid; sessions continue.
 */
export const rotateKeys = action("users.rotateKeys", {
  params: closed({ at_once: Type.Optional(Type.Boolean()) }),
  result: closed({ kid: Type.String() }),
});

export const usersHealth = health("users");
