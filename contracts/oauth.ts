import { Type, type Static } from "@sinclair/typebox";
import { action, closed } from "./contract";
import { refresh, token } from "./users";

/*
 * OAuth 2.0 (RFC 6749) at POST /token. The gateway translates its forms to `users.token` and `users.refresh`.
 */

/**
 * Accepted for clients that send them, and ignored. No client is registered here, so all are public ones without credentials (2.1, 3.2.1).
 * There are no scopes: a token has all rights of its user, and so those that were requested (3.3).
 */
const IGNORED = {
  client_id: Type.Optional(Type.String()),
  client_secret: Type.Optional(Type.String()),
  scope: Type.Optional(Type.String()),
};

/** RFC 6749, section 4.3.2. Unlike in JSON, unknown parameters are ignored (3.2). */
export const PasswordGrant = Type.Object({
  grant_type: Type.Literal("password"),
  username: token.params.properties.email,
  password: token.params.properties.password,
  ...IGNORED,
});

/** RFC 6749, section 6. */
export const RefreshGrant = Type.Object({
  grant_type: Type.Literal("refresh_token"),
  refresh_token: refresh.params.properties.refresh_token,
  ...IGNORED,
});

export const Grant = Type.Union([PasswordGrant, RefreshGrant]);

/** An error of a form, with status 400 (RFC 6749, section 5.2). The description has no other characters than these. */
export const OAuthError = closed({
  error: Type.Union([Type.Literal("invalid_request"), Type.Literal("invalid_grant"), Type.Literal("unsupported_grant_type")]),
  error_description: Type.String({ pattern: "^[\\x20-\\x21\\x23-\\x5b\\x5d-\\x7e]*$" }),
});
export type OAuthError = Static<typeof OAuthError>;

/** RFC 8414, section 2. */
export const AuthorizationServer = closed({
  issuer: Type.String(),
  token_endpoint: Type.String(),
  jwks_uri: Type.String(),
  response_types_supported: Type.Array(Type.String(), { maxItems: 0 }),
  grant_types_supported: Type.Array(Type.String()),
  token_endpoint_auth_methods_supported: Type.Array(Type.String()),
  service_documentation: Type.String(),
});
export type AuthorizationServer = Static<typeof AuthorizationServer>;

export const authorizationServer = action("api.authorizationServer", { params: closed({}), result: AuthorizationServer });
