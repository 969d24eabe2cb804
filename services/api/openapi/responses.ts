import { STATUS_CODES } from "node:http";
import { KindGuard, type TSchema } from "@sinclair/typebox";
import { fieldsOf } from "../../../contracts/contract";
import type { Route } from "../routing/route";
import { exampleOf } from "./examples";
import { headersOf } from "./headers";
import { problems } from "./problems";
import type { Schema, Schemas } from "./schemas";

/** Statuses without a body (RFC 9110, 15.3.5 and 15.4.5). */
const EMPTY = [204, 304];

/** All responses of a route, by status, for the OpenAPI document. */
export const responses = (route: Route, method: string, schemas: Schemas, basePath: string): object => ({
  ...problems(route, method, schemas, basePath),
  ...successes(route, schemas),
});

function successes({ statuses, contract, media = ["application/json"], takesIdempotencyKey }: Route, schemas: Schemas): object {
  const { result } = contract;
  const fields = fieldsOf(result);
  const isEmpty = KindGuard.IsObject(result) && Object.keys(fields).length === 0;
  const content = (status: number) =>
    Object.fromEntries(media.map((type) => [type, { schema: bodyOf(type, result, schemas), ...exampleOf(contract, status) }]));
  return Object.fromEntries(
    statuses.map((status) => [
      status,
      {
        description: STATUS_CODES[status] ?? "",
        ...headersOf(
          [
            ...("version" in fields || statuses.includes(304) ? (["ETag"] as const) : []),
            ...(status === 201 ? (["Location"] as const) : []),
            ...("next_cursor" in fields ? (["Link"] as const) : []),
            ...(takesIdempotencyKey ? (["Idempotent-Replayed"] as const) : []),
          ],
          schemas.components,
        ),
        ...(!EMPTY.includes(status) && !isEmpty && { content: content(status) }),
      },
    ]),
  );
}

/** Events are text. JSON Schema 2020-12, 8.5, describes the JSON in their data. */
function bodyOf(type: string, result: TSchema, schemas: Schemas): Schema {
  if (type !== "text/event-stream" || KindGuard.IsString(result)) return schemas.of(result);
  const description = "Server-sent events; `contentSchema` describes the data of each.";
  return { type: "string", description, contentMediaType: "application/json", contentSchema: schemas.of(result) };
}
