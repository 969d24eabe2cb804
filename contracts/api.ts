import { Type, type Static } from "@sinclair/typebox";
import { action, closed, Id, nullable, Shortage } from "./contract";
import { ERRORS, type ErrorCode } from "./errors";

/*
 * The gateway's own responses. It serves these routes without an action; their contracts are for the documentation.
 */

const Code = Type.Unsafe<ErrorCode>({ type: "string", enum: Object.keys(ERRORS) });

/** Values that are accepted. */
export const Values = Type.Array(Type.Union([Type.String(), Type.Number(), Type.Boolean(), Type.Null()]));

/**
 * RFC 9457 problem details. `type` leads to a page that explains the problem; it begins with BASE_PATH. The optional members are data for
 * programs: `errors` with VALIDATION_ERROR, `allowed` with BAD_REQUEST, `shortages` with INSUFFICIENT_STOCK of an order, and `retry_after`,
 * in seconds, with 429 and 503.
 */
export const Problem = closed({
  type: Type.String({ pattern: "^(/[A-Za-z0-9._~-]+)*/problems/[A-Z_]+$" }),
  title: Type.String(),
  status: Type.Integer(),
  code: Code,
  detail: Type.String(),
  request_id: Type.String(),
  errors: Type.Optional(
    Type.Array(
      closed({ field: Type.String(), message: Type.String(), allowed: Type.Optional(Values), limit: Type.Optional(Type.Number()) }),
    ),
  ),
  allowed: Type.Optional(Values),
  shortages: Type.Optional(Type.Array(Shortage)),
  retry_after: Type.Optional(Type.Integer({ minimum: 1 })),
});
export type ProblemDetails = Static<typeof Problem>;

const Check = closed({ name: Type.String(), ok: Type.Boolean(), detail: Type.Optional(Type.String()) });
export type Check = Static<typeof Check>;

export const Health = closed({
  status: Type.Union([Type.Literal("ok"), Type.Literal("unavailable")]),
  checks: Type.Array(Check),
});

export const live = action("api.live", { params: closed({}), result: Health });
export const ready = action("api.ready", { params: closed({}), result: Health });
export const health = action("api.health", { params: closed({}), result: Health });

/** Uptime in seconds, the load of its machine in % over the last minute, its memory in bytes; null if a node does not report them. */
export const Node = closed({
  id: Type.String(),
  services: Type.Array(Type.String()),
  version: nullable(Type.String()),
  uptime: nullable(Type.Integer({ minimum: 0 })),
  cpu: nullable(Type.Number()),
  memory: nullable(Type.Integer({ minimum: 0 })),
});
export type Node = Static<typeof Node>;
export const nodes = action("api.nodes", { params: closed({}), result: closed({ items: Type.Array(Node) }) });

/** Server-sent events: `id` is the position in the order's history, `data` has status, time, and the reason of a rejection. */
export const orderEvents = action("orders.events", {
  params: closed({ id: Id, last_event_id: Type.Optional(Type.Integer({ minimum: 0 })) }),
  result: Type.String(),
});

/** The page of a problem's `type`. */
export const problemPage = action("api.problem", { params: closed({ code: Code }), result: Type.String() });

export const openapi = action("api.openapi", { params: closed({}), result: Type.Object({ openapi: Type.String() }) });
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

const File = Type.Unsafe<DocsFile>({ type: "string", enum: Object.keys(DOCS_FILES) });
export const docsFile = action("api.docsFile", { params: closed({ file: File }), result: Type.String() });
