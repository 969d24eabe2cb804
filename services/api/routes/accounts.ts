import * as users from "../../../contracts/users";
import { ADDRESS, bodyParams } from "../routing/input";
import { created, noContent, ok } from "../routing/responses";
import { route, type Routes } from "../routing/route";
import { TOKEN_ROUTES } from "./token";

export const ACCOUNT_ROUTES: Routes = {
  "POST /register": route({
    action: users.register,
    lane: "passwords",
    summary: "Creates an account",
    statuses: [201],
    errors: ["EMAIL_TAKEN"],
    auth: "public",
    supplied: { address: ADDRESS },
    body: { example: { email: "ada@example.com", password: "correct horse" } },
    params: bodyParams,
    respond: (user) => created("/me", user, { "Cache-Control": "no-store" }),
  }),
  ...TOKEN_ROUTES,
  "POST /logout": route({
    action: users.logout,
    summary: "Ends the session of a refresh token; does nothing if the token is unknown",
    statuses: [204],
    errors: [],
    auth: "public",
    supplied: { address: ADDRESS },
    body: { example: { refresh_token: "5LnHxV3eYw0m6Zr9tQ2uBfKcJd8sPa1gNi7oTvXyEhM" } },
    params: bodyParams,
    respond: noContent,
  }),
  "GET /me": route({
    action: users.me,
    summary: "The caller's account",
    statuses: [200],
    errors: [],
    auth: "user",
    respond: (user) => ok(user),
  }),
  "PUT /me/password": route({
    action: users.changePassword,
    lane: "passwords",
    summary: "Sets a new password; ends all other sessions of the caller",
    statuses: [204],
    errors: ["INVALID_CREDENTIALS"],
    auth: "user",
    supplied: { address: ADDRESS },
    body: { example: { current_password: "correct horse", new_password: "battery staple" } },
    params: bodyParams,
    respond: noContent,
  }),
  "GET /.well-known/jwks.json": route({
    action: users.jwks,
    summary: "The public keys that verify access tokens (RFC 7517)",
    statuses: [200],
    errors: [],
    auth: "public",
    respond: (keys) => ok(keys, { "Cache-Control": "public, max-age=300" }),
  }),
};
