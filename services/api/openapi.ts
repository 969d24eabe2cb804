import { KindGuard, type TSchema } from "@sinclair/typebox";
import { examples, headers, responses } from "./responses";
import type { Route, Routes } from "./route";
import { EXAMPLE_ID, fieldsOf, Schemas, type Schema } from "./schemas";

/** Of package.json. */
interface Info {
  name: string;
  version: string;
  description: string;
  license: string;
}

const RULES = `
Log in by \`Authorize\`, with e-mail address and password or with a token of \`POST /token\`.

Every error is a \`Problem\` with a stable \`code\`. A field that a body does not know is refused. Every answer has an \`X-Request-Id\`:
yours, if you send one. HEAD works where GET does.`;

/** The tag of what a service does. What it does for admins alone is operation, as is what the gateway does by itself. */
const TAGS: Readonly<Record<string, string>> = { users: "Users", products: "Products", orders: "Orders" };
const OPERATIONS = "Operations";

/** OpenAPI 3.1 of a table of routes: made from what serves them, so that it is never behind. */
export function openapi(routes: Routes, { name, version, description, license }: Info): object {
  const schemas = new Schemas();
  const paths: Record<string, Record<string, object>> = {};
  for (const [line, route] of Object.entries(routes)) {
    const [method = "", path = ""] = line.split(" ");
    const operations = (paths[path.replace(/:(\w+)/g, "{$1}")] ??= {});
    operations[method.toLowerCase()] = operation(route, path, schemas);
  }
  return {
    openapi: "3.1.0",
    info: { title: name, version, description: `${description}.\n${RULES}`, license: { name: license, identifier: license } },
    servers: [{ url: "/" }],
    tags: [...Object.values(TAGS), OPERATIONS].map((tag) => ({ name: tag })),
    paths,
    components: {
      schemas: schemas.named,
      headers,
      examples,
      securitySchemes: {
        bearer: { type: "http", scheme: "bearer", bearerFormat: "JWT" },
        password: { type: "oauth2", flows: { password: { tokenUrl: "/token", scopes: {} } } },
      },
    },
  };
}

function operation(route: Route, path: string, schemas: Schemas): object {
  const { auth, body, contract, summary } = route;
  const [service = "", action = ""] = contract.name.split(".");
  const parameters = parametersOf(route, path, schemas);
  return {
    operationId: service + action.charAt(0).toUpperCase() + action.slice(1),
    tags: [(auth === "admin" ? undefined : TAGS[service]) ?? OPERATIONS],
    summary,
    security: auth === "public" ? [] : [{ bearer: [] }, { password: [] }],
    ...(parameters.length > 0 && { parameters }),
    ...(body !== "none" && { requestBody: requestBody(route, body, path, schemas) }),
    responses: responses(route, schemas),
  };
}

const inPath = (path: string, name: string): boolean => path.split("/").includes(`:${name}`);

/** What a request brings outside of its body. */
function parametersOf({ answers, body, contract, supplied }: Route, path: string, schemas: Schemas): object[] {
  const parameters = Object.entries(fieldsOf(contract.params)).flatMap(([name, schema]): object[] => {
    const header = supplied[name]?.header;
    if (inPath(path, name)) return [{ name, in: "path", required: true, schema: schemas.of(schema), ...exampleId(schema) }];
    if (header) return [{ ...header, in: "header", schema: KindGuard.IsString(schema) ? schemas.of(schema) : TEXT }];
    const { description, ...shape } = schemas.of(schema); // of a parameter, tools show its own description alone
    return body === "none" ? [{ name, in: "query", required: !KindGuard.IsOptional(schema), description, schema: shape }] : [];
  });
  return answers.includes(304) ? [...parameters, IF_NONE_MATCH] : parameters;
}

const exampleId = (schema: TSchema) => (KindGuard.IsInteger(schema) ? { example: 1 } : schema.format === "uuid" && { example: EXAMPLE_ID });

const TEXT: Schema = { type: "string" };
const IF_NONE_MATCH = { name: "If-None-Match", in: "header", description: "An ETag: 304 where it is still the current one.", schema: TEXT };

function requestBody({ contract, supplied }: Route, { example, form }: Exclude<Route["body"], "none">, path: string, schemas: Schemas) {
  const elsewhere = Object.keys(fieldsOf(contract.params)).filter((name) => inPath(path, name) || supplied[name] !== undefined);
  return {
    required: true,
    content: {
      "application/json": { schema: schemas.object(contract.params, elsewhere), example },
      ...(form && { "application/x-www-form-urlencoded": { schema: schemas.of(form) } }),
    },
  };
}
