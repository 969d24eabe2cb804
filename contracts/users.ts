import { Type, type Static } from "@sinclair/typebox";
import { action, closed, health, Id, nullable, Text, Timestamp } from "./contract";

export const Role = Type.Union([Type.Literal("user"), Type.Literal("admin")]);
export type Role = Static<typeof Role>;

/** Who is calling, as the gateway read it from the token; travels in `ctx.meta.user`. */
export interface Caller {
  readonly id: string;
  readonly role: Role;
  /** the login that the token comes from */
  readonly session?: string;
}

const Email = Type.String({ format: "idn-email", maxLength: 254 });

/** At most 72 bytes of UTF-8 without NUL: bcrypt reads no further. No composition rules (NIST SP 800-63B, 3.1.1.2). */
const Password = (minLength: number) => Type.String({ minLength, format: "password", maxLength: 72 });

export const User = closed({ id: Id, email: Email, role: Role, created_at: Timestamp });
export type User = Static<typeof User>;

/** A public signing key, RFC 7517 section 4. */
export const Jwk = closed({
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

/** What every access token claims as `iss` and `aud`, and what the gateway asks for (RFC 8725, 3.8 and 3.9). */
export const ISSUER = "moleculer-shop/users";
export const AUDIENCE = "moleculer-shop";

/** The client's address as the gateway names it, by which it is counted and takes its turn, and which the audit log names. */
const Address = Type.Optional(Type.String({ maxLength: 64 }));

/**
 * Opens an account. The same registration again, within 15 minutes and before the first login, returns the same account: after a
 * 503 nobody knows whether there is one. `EMAIL_TAKEN` for any other; it counts as a failed login.
 */
export const register = action("users.register", {
  params: closed({ email: Email, password: Password(8), address: Address }),
  result: User,
  timeout: 4_000,
});

/** RFC 6749, section 5.1. `expires_in` is of the access token, seconds. */
export const Tokens = closed({
  access_token: Type.String(),
  token_type: Type.Literal("bearer"),
  expires_in: Type.Integer({ minimum: 1 }),
  refresh_token: Type.String(),
});
export type Tokens = Static<typeof Tokens>;

const RefreshToken = Text({ minLength: 1, maxLength: 4_096 });

/**
 * A login: opens a session. `INVALID_CREDENTIALS` for an unknown e-mail and for a wrong password, in the same time;
 * `TOO_MANY_REQUESTS` after too many of them within a minute: for this account from this `address`, from this `address`, or for
 * this account from all addresses; the last does not apply to an address that the account has logged in from before.
 */
export const token = action("users.token", {
  params: closed({
    email: Text({ minLength: 1, maxLength: 254 }),
    password: Password(1),
    address: Address,
  }),
  result: Tokens,
  timeout: 4_000,
});

/** New tokens for a refresh token, which works once: used again it ends its session. INVALID_REFRESH_TOKEN for any but the newest. */
export const refresh = action("users.refresh", { params: closed({ refresh_token: RefreshToken, address: Address }), result: Tokens });

/** Ends the session of a refresh token, with its access tokens; nothing where the token is unknown. */
export const logout = action("users.logout", {
  params: closed({ refresh_token: RefreshToken, address: Address }),
  result: closed({}),
  repeatable: true,
});

/**
 * Ends all sessions of the caller but the one that asks. `INVALID_CREDENTIALS` where the current password is another,
 * `TOO_MANY_REQUESTS` after too many of these by the same user within a minute.
 */
export const changePassword = action("users.changePassword", {
  params: closed({ current_password: Password(1), new_password: Password(8), address: Address }),
  result: closed({}),
  timeout: 4_000,
});

export const me = action("users.me", { params: closed({}), result: User, repeatable: true });

/** The keys that verify access tokens. */
export const jwks = action("users.jwks", {
  params: closed({}),
  result: closed({ keys: Type.Array(Jwk) }),
  repeatable: true,
  timeout: 1_500,
});

const EndedSession = closed({ session: SessionId, until: Type.Integer() });
/** `until`: when the last of its access tokens expires, seconds since 1970. */
export type EndedSession = Static<typeof EndedSession>;

/** The end of a page of ended sessions: a time to the microsecond as the database writes it, and the id. */
const PageEnd = closed({ ended_at: Type.String({ pattern: "^[0-9T:.Z-]{20,30}$" }), session: SessionId });
export type PageEnd = Static<typeof PageEnd>;

/** The role that somebody has now; `until`: when the last access token that says otherwise expires. */
const ChangedRole = closed({ user: Id, role: Role, until: Type.Integer() });
export type ChangedRole = Static<typeof ChangedRole>;

/**
 * What a verifier of tokens can't see in them: which keys are told now, and the sessions that have ended and the roles that have
 * changed `since` the `at` of an earlier answer. Where there is a `next`, those `after` it are to be asked for at once.
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
  repeatable: true,
  timeout: 500,
});

/** Most sessions that are asked about at once. */
export const SESSIONS_PER_CALL = 1_000;

const Sessions = Type.Array(SessionId, { maxItems: SESSIONS_PER_CALL });

/**
 * What a database that fell back has changed without anybody's doing. Of these sessions, those that users does not know, and those of people who
 * are admins now. `until`: when the last access token that bears another role than that expires, seconds since 1970.
 */
export const checkSessions = action("users.checkSessions", {
  params: closed({ sessions: Type.Array(SessionId, { minItems: 1, maxItems: SESSIONS_PER_CALL }) }),
  result: closed({ unknown: Sessions, admins: Sessions, until: Type.Integer() }),
  repeatable: true,
  timeout: 500,
});

/**
 * Makes a new signing key. It is told at once and signs ten minutes later; the one before is told while its tokens live.
 * `at_once`, for keys that have got into other hands: all others are withdrawn, and every access token ends; sessions go on.
 */
export const rotateKeys = action("users.rotateKeys", {
  params: closed({ at_once: Type.Optional(Type.Boolean()) }),
  result: closed({ kid: Type.String() }),
});

export const usersHealth = health("users");
