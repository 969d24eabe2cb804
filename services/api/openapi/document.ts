import { KindGuard, type TSchema } from "@sinclair/typebox";
import { examples, headers, responses } from "./responses";
import type { Route, Routes } from "../routing/route";
import { fieldsOf } from "../../../contracts/contract";
import { IdempotencyKey } from "../../../contracts/orders";
import { EXAMPLE_ID, Schemas, type Schema } from "./schemas";

/** From package.json. */
interface Info {
  name: string;
  version: string;
  description: string;
  license: string;
}

const RULES = `
Log in with \`Authorize\`, by e-mail address and password or with a token from \`POST /token\`.

Every error is a \`Problem\` with a stable \`code\`, except that a form at \`POST /token\` gets the errors of OAuth. Unknown fields in a
body are refused. Every response has an \`X-Request-Id\`: yours, if you send one. HEAD works wherever GET does.`;

/** Tags by service. Routes only for admins, and the gateway's own, have the tag `OPERATIONS`. */
const TAGS: Readonly<Record<string, string>> = { users: "Users", products: "Products", orders: "Orders" };
const OPERATIONS = "Operations";

/** An OpenAPI 3.1 document, generated from the routes that are served, so it is never out of date. */
export function openapi(routes: Routes, { name, version, description, license }: Info, basePath: string): object {
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
    servers: [{ url: basePath || "/" }],
    tags: [...Object.values(TAGS), OPERATIONS].map((tag) => ({ name: tag })),
    paths,
    components: {
      schemas: schemas.named,
      headers,
      examples: examples(basePath),
      securitySchemes: {
        bearer: { type: "http", scheme: "bearer", bearerFormat: "JWT" },
        password: { type: "oauth2", flows: { password: { tokenUrl: `${basePath}/token`, refreshUrl: `${basePath}/token`, scopes: {} } } },
      },
    },
  };
}

function operation(route: Route, path: string, schemas: Schemas): object {
  const { auth, body, contract, summary, description } = route;
  const [service = "", action = ""] = contract.name.split(".");
  const parameters = parametersOf(route, path, schemas);
  return {
    operationId: service + action.charAt(0).toUpperCase() + action.slice(1),
    tags: [(auth === "admin" ? undefined : TAGS[service]) ?? OPERATIONS],
    summary,
    ...(description !== undefined && { description }),
    security: auth === "public" ? [] : [{ bearer: [] }, { password: [] }],
    ...(parameters.length > 0 && { parameters }),
    ...(body !== "none" && { requestBody: requestBody(route, body, path, schemas) }),
    responses: responses(route, schemas),
  };
}

const inPath = (path: string, name: string): boolean => path.split("/").includes(`:${name}`);

/** The parameters of a request outside its body. */
function parametersOf({ statuses, body, contract, supplied, idempotent }: Route, path: string, schemas: Schemas): object[] {
  const parameters = Object.entries(fieldsOf(contract.params)).flatMap(([name, schema]): object[] => {
    const header = supplied[name]?.header;
    if (inPath(path, name)) return [{ name, in: "path", required: true, schema: schemas.of(schema), ...exampleId(schema) }];
    if (header) return [{ ...header, in: "header", schema: KindGuard.IsString(schema) ? schemas.of(schema) : TEXT }];
    const { description, ...shape } = schemas.of(schema); // tools show only the parameter's own description, not its schema's
    return body === "none" ? [{ name, in: "query", required: !KindGuard.IsOptional(schema), description, schema: shape }] : [];
  });
  return [
    ...parameters,
    ...(statuses.includes(304) ? [IF_NONE_MATCH] : []),
    ...(idempotent ? [{ ...IDEMPOTENCY_KEY, schema: schemas.of(IdempotencyKey) }] : []),
  ];
}

const exampleId = (schema: TSchema) => (KindGuard.IsInteger(schema) ? { example: 1 } : schema.format === "uuid" && { example: EXAMPLE_ID });

const TEXT: Schema = { type: "string" };
const IF_NONE_MATCH = {
  name: "If-None-Match",
  in: "header",
  description: "An ETag: the response is 304 if it is still current.",
  schema: TEXT,
};
const IDEMPOTENCY_KEY = {
  name: "Idempotency-Key",
  in: "header",
  description:
    "1 to 255 visible ASCII characters of your choice. After any failure, repeat the request with the same key: it takes effect once.",
};

function requestBody({ contract, supplied }: Route, body: Exclude<Route["body"], "none">, path: string, schemas: Schemas) {
  const { example, form } = body === "empty" ? { example: {}, form: undefined } : body;
  const elsewhere = Object.keys(fieldsOf(contract.params)).filter((name) => inPath(path, name) || supplied[name] !== undefined);
  return {
    required: body !== "empty",
    content: {
      "application/json": { schema: schemas.object(contract.params, elsewhere), example },
      ...(form && { "application/x-www-form-urlencoded": { schema: schemas.of(form.schema) } }),
    },
  };
}
