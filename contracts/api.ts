import { Type, type Static, type TProperties } from "@sinclair/typebox";
import { action, closed, described, Id, named, nullable, Shortage } from "./contract";
import { ERRORS, type ErrorCode } from "./errors";

/*
 * The gateway's own responses. It serves these routes without an action; their contracts are for the documentation.
 */

const Code = Type.Unsafe<ErrorCode>({
  title: "Error code",
  description: "Which problem it is. Codes are stable, and `GET /problems/{code}` explains each.",
  type: "string",
  enum: Object.keys(ERRORS),
});

/** Values that are accepted. */
export const Values = Type.Array(Type.Union([Type.String(), Type.Number(), Type.Boolean(), Type.Null()]));

const FieldError = named("Field error", "A field of a body that breaks the contract.", {
  field: Type.String({ description: "Its path, such as `items[0].quantity`." }),
  message: Type.String({ description: "What is wrong, for people." }),
  allowed: Type.Optional(described(Values, "The accepted values, if there are few.")),
  limit: Type.Optional(Type.Number({ description: "The bound that is exceeded." })),
});

/** RFC 9457 problem details. Those of some codes have more members, see PROBLEM_DATA. */
export const Problem = Type.Object(
  {
    type: Type.String({
      pattern: "^(/[A-Za-z0-9._~-]+)*/problems/[A-Z_]+$",
      description: "The path of a page that explains the problem; it begins with the base path.",
    }),
    title: Type.String({ description: "The title of the status." }),
    status: Type.Integer({ description: "The status of the response." }),
    code: Code,
    detail: Type.String({ description: "A sentence for people, which may change." }),
    request_id: Type.String({ description: "The `X-Request-Id` of the response, which is in the log, too." }),
  },
  { title: "Problem", description: "What all problems have in common (RFC 9457)." },
);

const data = {
  errors: Type.Array(FieldError, { description: "At most 20 errors, one per field." }),
  allowed: described(Values, "The accepted values of the query parameter, if there are few."),
  shortages: Type.Array(Shortage, { description: "For an order: its lines that can't be fulfilled." }),
  retry_after: Type.Integer({ minimum: 1, description: "Seconds to wait before retrying, as in the header `Retry-After`." }),
};
export type ProblemDetails = Static<typeof Problem> & { [K in keyof typeof data]?: Static<(typeof data)[K]> };

/** By code: the members with data for programs. Optional ones depend on the cause. */
export const PROBLEM_DATA: Partial<Record<ErrorCode, TProperties>> = {
  VALIDATION_ERROR: { errors: data.errors },
  BAD_REQUEST: { allowed: Type.Optional(data.allowed) },
  INSUFFICIENT_STOCK: { shortages: Type.Optional(data.shortages) },
  TOO_MANY_REQUESTS: { retry_after: data.retry_after },
  SERVICE_UNAVAILABLE: { retry_after: data.retry_after },
};

/** The body of a route whose body has no fields. */
export const EmptyBody = named("Empty body", "An object without fields, which may be left out.", {});

const Check = named("Health check", "Whether one part of the shop works.", {
  name: Type.String(),
  ok: Type.Boolean(),
  detail: Type.Optional(Type.String({ description: "What is wrong." })),
});
export type Check = Static<typeof Check>;

export const Health = named("Health", "Whether a gateway or the whole shop works.", {
  status: Type.Union([Type.Literal("ok"), Type.Literal("unavailable")]),
  checks: Type.Array(Check),
});

export const live = action("api.live", { params: closed({}), result: Health });
export const ready = action("api.ready", { params: closed({}), result: Health });
export const health = action("api.health", { params: closed({}), result: Health });

export const Node = named("Node", "A process of the shop. What it does not report is null.", {
  id: Type.String(),
  services: Type.Array(Type.String()),
  version: described(nullable(Type.String()), "The shop's version."),
  uptime: described(nullable(Type.Integer({ minimum: 0 })), "Seconds since its start."),
  cpu: described(nullable(Type.Number()), "The load of its machine over the last minute, in %."),
  memory: described(nullable(Type.Integer({ minimum: 0 })), "The resident memory of its process in bytes."),
});
export type Node = Static<typeof Node>;
export const nodes = action("api.nodes", {
  params: closed({}),
  result: named("Node list", "The nodes that a gateway can reach.", { items: Type.Array(Node) }),
});

/** Server-sent events: `id` is the position in the order's history, `data` has status, time, and the reason of a rejection. */
export const orderEvents = action("orders.events", {
  params: closed({ id: described(Id, "The order's id."), last_event_id: Type.Optional(Type.Integer({ minimum: 0 })) }),
  result: Type.String(),
});

/** The page of a problem's `type`. */
export const problemPage = action("api.problem", { params: closed({ code: Code }), result: Type.String() });

export const openapi = action("api.openapi", {
  params: closed({}),
  result: Type.Object(
    { openapi: Type.String({ description: "The version of the OpenAPI Specification." }) },
    { title: "OpenAPI document", description: "A document of the OpenAPI Specification." },
  ),
});
export const docs = action("api.docs", { params: closed({}), result: Type.String() });

/** The files of the documentation page, and their media types. */
export const DOCS_FILES = {
  "swagger-ui.css": "text/css; charset=utf-8",
  "docs.css": "text/css; charset=utf-8",
  "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
  "start.js": "text/javascript; charset=utf-8",
  "favicon-32x32.png": "image/png",
} as const;
export type DocsFile = keyof typeof DOCS_FILES;

const File = Type.Unsafe<DocsFile>({ type: "string", enum: Object.keys(DOCS_FILES), description: "The name of the file." });
export const docsFile = action("api.docsFile", { params: closed({ file: File }), result: Type.String() });
