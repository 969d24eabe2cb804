import { Type, type Static } from "@sinclair/typebox";
import { action, closed, Id, nullable } from "./contract";
import { ERRORS, type ErrorCode } from "./errors";

/*
 * The gateway's own responses. It serves these routes without an action; their contracts are for the documentation.
 */

/** RFC 9457 problem details, with a stable code; `errors` only with VALIDATION_ERROR. */
export const Problem = closed({
  type: Type.Literal("about:blank"),
  title: Type.String(),
  status: Type.Integer(),
  code: Type.Unsafe<ErrorCode>({ type: "string", enum: Object.keys(ERRORS) }),
  detail: Type.String(),
  request_id: Type.String(),
  errors: Type.Optional(Type.Array(closed({ field: Type.String(), message: Type.String() }))),
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

export const openapi = action("api.openapi", { params: closed({}), result: Type.Object({ openapi: Type.String() }) });
export const docs = action("api.docs", { params: closed({}), result: Type.String() });

/** The files of the documentation page, and their media types. */
export const DOCS_FILES = {
  "swagger-ui.css": "text/css; charset=utf-8",
  "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
  "start.js": "text/javascript; charset=utf-8",
  "favicon-32x32.png": "image/png",
} as const;
export type DocsFile = keyof typeof DOCS_FILES;

const File = Type.Unsafe<DocsFile>({ type: "string", enum: Object.keys(DOCS_FILES) });
export const docsFile = action("api.docsFile", { params: closed({ file: File }), result: Type.String() });
