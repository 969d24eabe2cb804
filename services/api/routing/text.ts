import { KindGuard, type TSchema } from "@sinclair/typebox";
import { fieldsOf } from "../../../contracts/contract";

/** The text fields of a contract. Not passwords, which are compared byte by byte. */
export const textFields = (schema: TSchema): string[] =>
  Object.entries(fieldsOf(schema)).flatMap(([name, field]) => (isText(field) ? name : []));

const isText = (schema: TSchema): boolean =>
  KindGuard.IsUnion(schema) ? schema.anyOf.some(isText) : KindGuard.IsString(schema) && schema.format === "text";

/** A body or query with CRLF replaced by a line feed in these fields. Values other than objects are returned as they are. */
export function withLineFeeds<T>(values: T, fields: readonly string[]): T {
  if (typeof values !== "object" || values === null) return values;
  const changed = fields.flatMap((name): [string, string][] => {
    const value: unknown = Object.hasOwn(values, name) ? Reflect.get(values, name) : undefined;
    return typeof value === "string" && value.includes("\r\n") ? [[name, value.replaceAll("\r\n", "\n")]] : [];
  });
  return changed.length === 0 ? values : { ...values, ...Object.fromEntries(changed) };
}
