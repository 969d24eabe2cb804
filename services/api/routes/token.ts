import { authorizationServer, Grant, OAuthError, PasswordGrant, RefreshGrant, type AuthorizationServer } from "../../../contracts/oauth";
import * as users from "../../../contracts/users";
import { Form } from "../http/form";
import { NOT_CACHED, oauthRefusal, RefusedForm } from "../http/oauth";
import { ADDRESS, bodyParams, refuseQuery, type Input } from "../routing/input";
import { ok } from "../routing/responses";
import { route, TAKES_NOTHING, type Perform, type HttpResponse, type Routes } from "../routing/route";

/** Accepts the names of OAuth in JSON, too. */
function credentials(input: Input, supplied: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const params = bodyParams(input, supplied);
  if (!("grant_type" in params) && !("username" in params)) return params;
  const { grant_type, username, scope: _scope, client_id: _client, client_secret: _secret, ...rest } = params;
  return {
    ...(grant_type !== undefined && grant_type !== "password" && { grant_type }),
    ...(username !== undefined && { ["email" in rest ? "username" : "email"]: username }),
    ...rest,
  };
}

const tokens = (granted: users.Tokens): HttpResponse<200> => ok(granted, NOT_CACHED);

const login = route({
  action: users.token,
  lane: "passwords",
  summary: "Logs in: an access token and a refresh token for an e-mail address and its password. A form may also refresh them",
  statuses: [200],
  errors: ["INVALID_CREDENTIALS"],
  auth: "public",
  supplied: { address: ADDRESS },
  body: {
    example: { email: "ada@example.com", password: "correct horse" },
    form: { schema: Grant, error: OAuthError, refusal: oauthRefusal },
  },
  params: credentials,
  respond: tokens,
});

const refresh = route({
  action: users.refresh,
  summary: "New tokens for a refresh token, which works only once: using it again later ends its session",
  statuses: [200],
  errors: ["INVALID_REFRESH_TOKEN"],
  auth: "public",
  supplied: { address: ADDRESS },
  body: { example: { refresh_token: "5LnHxV3eYw0m6Zr9tQ2uBfKcJd8sPa1gNi7oTvXyEhM" } },
  params: bodyParams,
  respond: tokens,
});

/** The parameters that may occur only once (RFC 6749, section 3.2). Others are ignored. */
const KNOWN = Object.keys({ ...PasswordGrant.properties, ...RefreshGrant.properties });

/** The values of a parameter. One without a value counts as omitted (RFC 6749, section 3.2). */
const given = (form: Form, name: string): string[] => form.all(name).filter((value) => value !== "");

function parameter(form: Form, name: string): string {
  const [value] = given(form, name);
  if (value === undefined) throw new RefusedForm("invalid_request", `${name} is missing`);
  return value;
}

/** Validates a form, and then the grant in it as if it were JSON. The endpoint's URI may have a query (RFC 6749, section 3.2). */
function readGrant({ query: _query, ...rest }: Input, form: Form): Perform {
  const input = { ...rest, query: {} };
  const repeated = KNOWN.find((name) => given(form, name).length > 1);
  if (repeated !== undefined) throw new RefusedForm("invalid_request", `${repeated} occurs more than once`);
  switch (parameter(form, "grant_type")) {
    case "password":
      return login.read({ ...input, body: { email: parameter(form, "username"), password: parameter(form, "password") } });
    case "refresh_token":
      return refresh.read({ ...input, body: { refresh_token: parameter(form, "refresh_token") } });
    default:
      throw new RefusedForm("unsupported_grant_type", "grant_type must be password or refresh_token");
  }
}

/** Where tokens come from. */
export const TOKEN_ROUTES: Routes = {
  "POST /token": { ...login, read: (input) => (input.body instanceof Form ? readGrant(input, input.body) : login.read(input)) },
  "POST /token/refresh": refresh,
};

/** @param issuer the gateway's origin and base path */
const metadataOf = (issuer: string): AuthorizationServer => ({
  issuer,
  token_endpoint: `${issuer}/token`,
  jwks_uri: `${issuer}/.well-known/jwks.json`,
  response_types_supported: [], // a required field, although only an authorization endpoint has response types
  grant_types_supported: ["password", "refresh_token"],
  token_endpoint_auth_methods_supported: ["none"],
  service_documentation: `${issuer}/docs`,
});

/**
 * The metadata of the authorization server (RFC 8414). The issuer is configured, not taken from the Host header, with which a request could
 * direct other clients of a shared cache to a token endpoint of its choice.
 * @param issuer the gateway's origin and base path; undefined if it is unknown, and then there are no metadata
 */
export const metadataRoutes = (issuer: string | undefined): Routes =>
  issuer === undefined
    ? {}
    : {
        "GET /.well-known/oauth-authorization-server": {
          ...TAKES_NOTHING,
          auth: "public",
          contract: authorizationServer,
          summary: "The grants that POST /token accepts, for OAuth clients (RFC 8414)",
          statuses: [200],
          read: (input) => {
            refuseQuery(input);
            return () => Promise.resolve(ok(metadataOf(issuer), { "Cache-Control": "public, max-age=300" }));
          },
        },
      };
