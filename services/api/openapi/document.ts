import { KindGuard, type TSchema } from "@sinclair/typebox";
import { EmptyBody } from "../../../contracts/api";
import { fieldsOf } from "../../../contracts/contract";
import { IdempotencyKey } from "../../../contracts/orders";
import type { Route, Routes } from "../routing/route";
import { operationOf } from "./operations";
import { responses } from "./responses";
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

interface Tag {
  name: string;
  description: string;
}

/** By service. Routes only for admins, and the gateway's own, have the tag `OPERATIONS`. */
const TAGS: Readonly<Record<string, Tag>> = {
  users: { name: "Users", description: "Accounts, sessions and their tokens." },
  products: { name: "Products", description: "The catalogue, and the stock of each product." },
  orders: { name: "Orders", description: "Orders of the caller; an admin may see and cancel those of others." },
};
const OPERATIONS: Tag = { name: "Operations", description: "For operators: health, administration, and this documentation." };

/** An OpenAPI 3.1 document, generated from the routes that are served, so it is never out of date. */
export function openapi(routes: Routes, { name, version, description, license }: Info, basePath: string): object {
  const schemas = new Schemas();
  const paths: Record<string, Record<string, object>> = {};
  for (const [line, route] of Object.entries(routes)) {
    const [method = "", path = ""] = line.split(" ");
    const operations = (paths[path.replace(/:(\w+)/g, "{$1}")] ??= {});
    operations[method.toLowerCase()] = operation(route, method, path, schemas, basePath);
  }
  return {
    openapi: "3.1.0",
    info: { title: name, version, description: `${description}.\n${RULES}`, license: { name: license, identifier: license } },
    servers: [{ url: basePath || "/" }],
    tags: [...Object.values(TAGS), OPERATIONS],
    paths,
    components: {
      ...schemas.components.all,
      securitySchemes: {
        bearer: { type: "http", scheme: "bearer", bearerFormat: "JWT", description: "An access token from `POST /token`." },
        password: {
          type: "oauth2",
          description: "The e-mail address as the username, and the password.",
          flows: { password: { tokenUrl: `${basePath}/token`, refreshUrl: `${basePath}/token`, scopes: {} } },
        },
      },
    },
  };
}

function operation(route: Route, method: string, path: string, schemas: Schemas, basePath: string): object {
  const { auth, body, contract, summary } = route;
  const [service = ""] = contract.name.split(".");
  const { id, description } = operationOf(contract);
  const tag = (auth === "admin" ? undefined : TAGS[service]) ?? OPERATIONS;
  const parameters = parametersOf(route, path, schemas);
  return {
    operationId: id,
    tags: [tag.name],
    summary,
    description: route.description ?? description,
    security: auth === "public" ? [] : [{ bearer: [] }, { password: [] }],
    ...(parameters.length > 0 && { parameters }),
    ...(body !== "none" && { requestBody: requestBody(route, body, path, schemas) }),
    responses: responses(route, method, schemas, basePath),
  };
}

const inPath = (path: string, name: string): boolean => path.split("/").includes(`:${name}`);

/** The parameters of a request outside its body. */
function parametersOf({ statuses, body, contract, supplied, takesIdempotencyKey }: Route, path: string, schemas: Schemas): object[] {
  const parameters = Object.entries(fieldsOf(contract.params)).flatMap(([name, field]): object[] => {
    const header = supplied[name]?.header;
    if (header) return [{ ...header, in: "header", schema: KindGuard.IsString(field) ? schemas.of(field) : TEXT }];
    // tools show only the parameter's own description, not its schema's; that of a named schema remains there, too
    const { description = field.description, ...schema } = schemas.of(field);
    if (inPath(path, name)) return [{ name, in: "path", required: true, description, schema, example: exampleId(field) }];
    return body === "none" ? [{ name, in: "query", required: !KindGuard.IsOptional(field), description, schema }] : [];
  });
  return [
    ...parameters,
    ...(statuses.includes(304) ? [IF_NONE_MATCH] : []),
    ...(takesIdempotencyKey ? [{ ...IDEMPOTENCY_KEY, schema: schemas.of(IdempotencyKey) }] : []),
  ];
}

/** The example of a part of a path: an id, or the first of the values. */
function exampleId(field: TSchema): unknown {
  if (KindGuard.IsInteger(field)) return 1;
  const values: unknown = field["enum"];
  return Array.isArray(values) ? values[0] : EXAMPLE_ID;
}

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
  if (body === "empty") return { required: false, content: { "application/json": { schema: schemas.of(EmptyBody), example: {} } } };
  const { example, form } = body;
  const elsewhere = Object.keys(fieldsOf(contract.params)).filter((name) => inPath(path, name) || supplied[name] !== undefined);
  return {
    required: true,
    content: {
      "application/json": { schema: schemas.body(contract.params, elsewhere), example },
      ...(form && { "application/x-www-form-urlencoded": { schema: schemas.of(form.schema) } }),
    },
  };
}
