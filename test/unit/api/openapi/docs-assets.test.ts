import { readFileSync } from "node:fs";
import { createContext, runInContext } from "node:vm";
import { DOCS_STYLE, docsScript } from "../../../../services/api/openapi/docs-assets";
import { openapi } from "../../../../services/api/openapi/document";
import { ROUTES } from "../../../../services/api/routes/shop";

const swaggerUi = (file: string): string => readFileSync(require.resolve(`swagger-ui-dist/${file}`), "utf8");

/** A page that runs the script, in a browser that prefers dark colours or not, and with the content of a tab's sessionStorage. */
function open(prefersDark = false, stored = new Map<string, string>()) {
  const media = { matches: prefersDark, listener: (): void => undefined };
  const classes = new Set<string>();
  const restored: unknown[] = [];
  let options: any;
  let load = (): void => undefined;
  const page = {
    matchMedia: (query: string) => ({
      get matches() {
        return query === "(prefers-color-scheme: dark)" && media.matches;
      },
      addEventListener: (_type: string, listener: () => void) => (media.listener = listener),
    }),
    document: {
      documentElement: { classList: { toggle: (name: string, isOn: boolean) => (isOn ? classes.add(name) : classes.delete(name)) } },
    },
    sessionStorage: { getItem: (key: string) => stored.get(key) ?? null, setItem: (key: string, value: string) => stored.set(key, value) },
    addEventListener: (_type: string, listener: () => void) => (load = listener),
    SwaggerUIBundle: (given: unknown) => {
      options = given;
      return { authActions: { restoreAuthorization: (login: unknown) => restored.push(JSON.parse(JSON.stringify(login))) } };
    },
  };
  runInContext(docsScript("/shop"), createContext(page));
  const shownAtFirst = [...classes];
  load();
  options.onComplete();
  const [login, streams] = options.plugins.map((plugin: () => unknown) => plugin());
  return {
    options,
    media,
    classes,
    shownAtFirst,
    restored,
    /** As Swagger UI does after a login or logout. */
    persist(authorized: object): void {
      const system = { authSelectors: { authorized: () => ({ toJS: () => authorized }) } };
      login.statePlugins.auth.wrapActions.persistAuthorizationIfNeeded(undefined, system)();
    },
    canTry(document: object, path: string, method: string): unknown {
      const at = (keys: string[]): unknown =>
        keys.slice(1).reduce<unknown>((value, key) => (value as Record<string, unknown> | undefined)?.[key], document);
      return streams.statePlugins.spec.wrapSelectors.allowTryItOutFor(() => true)({ getIn: at }, path, method);
    },
  };
}

describe("the documentation page", () => {
  it("is dark from the start where the browser prefers it, and follows the browser", () => {
    expect(open(false).shownAtFirst).toEqual([]);
    const { media, classes, shownAtFirst } = open(true);
    expect(shownAtFirst).toEqual(["dark-mode"]);
    media.matches = false;
    media.listener();
    expect([...classes]).toEqual([]);
    media.matches = true;
    media.listener();
    expect([...classes]).toEqual(["dark-mode"]);
  });

  const LOGIN = {
    name: "password",
    username: "ada@example.com",
    password: "correct horse",
    token: { access_token: "access", token_type: "bearer", refresh_token: "refresh" },
  };

  it("is logged in again after a reload, with the tokens that it had", () => {
    const stored = new Map<string, string>();
    open(false, stored).persist({ password: LOGIN, bearer: { name: "bearer", value: "typed" } });
    const password = { name: "password", token: { access_token: "access", token_type: "bearer" } };
    expect(open(false, stored).restored).toEqual([{ authorized: { bearer: { name: "bearer", value: "typed" }, password } }]);
  });

  it("stores neither the password nor the refresh token", () => {
    const stored = new Map<string, string>();
    open(false, stored).persist({ password: LOGIN });
    expect([...stored.values()].map((text) => JSON.parse(text) as unknown)).toEqual([{ password: "access" }]);
  });

  it("is logged out after a logout and a reload, and in a new tab", () => {
    const stored = new Map<string, string>();
    const page = open(false, stored);
    expect(page.restored).toEqual([{ authorized: {} }]);
    page.persist({ password: LOGIN });
    page.persist({});
    expect(open(false, stored).restored).toEqual([{ authorized: {} }]);
  });

  it("doesn't use Swagger UI's own storage of the login", () => {
    expect(open().options).not.toHaveProperty("persistAuthorization");
  });

  it("lets every operation be tried but event streams, whose responses would not end", () => {
    const document = openapi(ROUTES, { name: "shop", version: "1", description: "A shop", license: "MIT" }, "") as {
      paths: Record<string, object>;
    };
    const page = open();
    const untried = Object.entries(document.paths).flatMap(([path, operations]) =>
      Object.keys(operations).flatMap((method) => (page.canTry(document, path, method) ? [] : `${method} ${path}`)),
    );
    expect(untried).toEqual(["get /orders/{id}/events"]);
  });
});

describe("Swagger UI still has what the page relies on:", () => {
  it("dark colours", () => {
    expect(swaggerUi("swagger-ui.css")).toContain("html.dark-mode .swagger-ui{");
  });

  it.each(["persistAuthorizationIfNeeded", "restoreAuthorization", "allowTryItOutFor", "onComplete"])("%s", (name) => {
    expect(swaggerUi("swagger-ui-bundle.js")).toContain(name);
  });

  it.each(["client_id_", "client_secret_", "password_type"])("a label for the field %s, which the page's style hides", (field) => {
    expect(DOCS_STYLE).toContain(`.wrapper:has(> [for="${field}`);
    expect(swaggerUi("swagger-ui-bundle.js")).toMatch(new RegExp(`htmlFor:["\`]${field}`));
  });
});
