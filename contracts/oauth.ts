import { Type, type Static } from "@sinclair/typebox";
import { action, closed, described, named } from "./contract";
import { refresh, token } from "./users";

/*
 * OAuth 2.0 (RFC 6749) at POST /token. The gateway translates its forms to `users.token` and `users.refresh`.
 */

/**
 * Accepted for clients that send them, and ignored. No client is registered here: all are public and have no credentials (2.1, 3.2.1).
 * There are no scopes: a token has all rights of its user, which include any that were requested (3.3).
 */
const IGNORED = {
  client_id: Type.Optional(Type.String({ description: "Ignored." })),
  client_secret: Type.Optional(Type.String({ description: "Ignored." })),
  scope: Type.Optional(Type.String({ description: "Ignored: a token has all rights of its user." })),
};

/** Unlike in JSON, unknown parameters are ignored (3.2). */
export const PasswordGrant = Type.Object(
  {
    grant_type: Type.Literal("password"),
    username: described(token.params.properties.email, "The e-mail address, in upper or lower case."),
    password: token.params.properties.password,
    ...IGNORED,
  },
  { title: "Password grant", description: "A login (RFC 6749, section 4.3.2)." },
);

export const RefreshGrant = Type.Object(
  {
    grant_type: Type.Literal("refresh_token"),
    refresh_token: refresh.params.properties.refresh_token,
    ...IGNORED,
  },
  { title: "Refresh grant", description: "A request for new tokens (RFC 6749, section 6)." },
);

export const Grant = Type.Union([PasswordGrant, RefreshGrant]);

export const OAuthError = named("OAuth error", "The error response to a form-encoded token request (RFC 6749, section 5.2).", {
  error: Type.Union([Type.Literal("invalid_request"), Type.Literal("invalid_grant"), Type.Literal("unsupported_grant_type")]),
  // the only characters that it may have
  error_description: Type.String({ pattern: "^[\\x20-\\x21\\x23-\\x5b\\x5d-\\x7e]*$" }),
});
export type OAuthError = Static<typeof OAuthError>;

export const AuthorizationServer = named("Authorization server", "The metadata of an authorization server (RFC 8414, section 2).", {
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
