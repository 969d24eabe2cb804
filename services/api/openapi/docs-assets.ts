/*
 * What the documentation page adds to Swagger UI. Its Content-Security-Policy allows no inline script or style, so both are
 * served as files.
 */

/** Swagger UI shows fields for the credentials and scopes of an OAuth client. The shop has neither. */
export const DOCS_STYLE = `.swagger-ui .auth-container .scope-def,
.swagger-ui .auth-container .wrapper:has(> [for="client_id_password"]),
.swagger-ui .auth-container .wrapper:has(> [for="client_secret_password"]),
.swagger-ui .auth-container .wrapper:has(> [for="password_type"]) {
  display: none;
}
`;

/**
 * Starts Swagger UI.
 *
 * A reload keeps the login. Swagger UI's own `persistAuthorization` would store the e-mail address, the password and the refresh token in
 * localStorage, where they stay for ever and every page of the origin can read them. Only the access token is stored, which expires within
 * minutes, and in sessionStorage, which ends with the tab. A script that could read it there could also read it from the page itself.
 *
 * An event stream can't be tried: Swagger UI shows a response once it is complete, after 15 minutes for an order that stays confirmed.
 */
export const docsScript = (basePath: string): string => `"use strict";

// Before the first paint: Swagger UI has dark colours, but the page has to choose them.
const dark = matchMedia("(prefers-color-scheme: dark)");
const showColours = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
showColours();
dark.addEventListener("change", showColours);

const STORED = "${basePath}/docs access tokens";

const keepLogin = () => ({
  statePlugins: {
    auth: {
      wrapActions: {
        // called after each login and logout
        persistAuthorizationIfNeeded: (_original, { authSelectors }) => () => {
          const { bearer, password } = authSelectors.authorized().toJS();
          sessionStorage.setItem(STORED, JSON.stringify({ bearer: bearer?.value, password: password?.token?.access_token }));
        },
      },
    },
  },
});

function restoreLogin({ authActions }) {
  const { bearer, password } = JSON.parse(sessionStorage.getItem(STORED) ?? "{}");
  authActions.restoreAuthorization({
    authorized: {
      ...(bearer && { bearer: { name: "bearer", value: bearer } }),
      ...(password && { password: { name: "password", token: { access_token: password, token_type: "bearer" } } }),
    },
  });
}

const hideTryItOutForStreams = () => ({
  statePlugins: {
    spec: {
      wrapSelectors: {
        allowTryItOutFor: (original) => (state, path, method) =>
          original(path, method) &&
          state.getIn(["json", "paths", path, method, "responses", "200", "content", "text/event-stream"]) === undefined,
      },
    },
  },
});

// when Swagger UI, which is loaded after this script, is there
addEventListener("DOMContentLoaded", () => {
  const ui = SwaggerUIBundle({
    url: "${basePath}/openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    tryItOutEnabled: true,
    plugins: [keepLogin, hideTryItOutForStreams],
    onComplete: () => restoreLogin(ui),
  });
});
`;
