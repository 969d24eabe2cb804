import { Type, type Static } from "@sinclair/typebox";
import { action, closed, health, Id, Text, Timestamp } from "./contract";

export const Role = Type.Union([Type.Literal("user"), Type.Literal("admin")]);
export type Role = Static<typeof Role>;

/** Who is calling, as the gateway read it from the token; travels in `ctx.meta.user`. */
export interface Caller {
  readonly id: number;
  readonly role: Role;
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

/** The claims of an access token (RFC 7519, section 4) that are read here. */
export const Claims = Type.Object({
  sub: Type.String({ pattern: "^[1-9][0-9]{0,15}$" }),
  role: Role,
  jti: Type.String({ minLength: 1 }),
  iat: Type.Integer(),
  exp: Type.Integer(),
});

/** What every access token claims as `iss` and `aud`, and what the gateway asks for (RFC 8725, 3.8 and 3.9). */
export const ISSUER = "moleculer-shop/users";
export const AUDIENCE = "moleculer-shop";

export const register = action("users.register", {
  params: closed({ email: Email, password: Password(8) }),
  result: User,
  timeout: 4_000,
});

/** `INVALID_CREDENTIALS` for an unknown e-mail and for a wrong password, in the same time. */
export const token = action("users.token", {
  params: closed({ email: Text({ minLength: 1, maxLength: 254 }), password: Password(1) }),
  result: closed({
    access_token: Type.String(),
    token_type: Type.Literal("bearer"),
    expires_in: Type.Integer({ minimum: 1 }),
  }),
  timeout: 4_000,
});

export const me = action("users.me", { params: closed({}), result: User, repeatable: true });

/** The keys that verify access tokens: the newest signs, older ones are told while tokens signed by them may live. */
export const jwks = action("users.jwks", {
  params: closed({}),
  result: closed({ keys: Type.Array(Jwk) }),
  repeatable: true,
  timeout: 1_500,
});

export const usersHealth = health("users");
