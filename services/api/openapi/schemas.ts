import { KindGuard, type TSchema, type TUnion } from "@sinclair/typebox";
import { fieldsOf } from "../../../contracts/contract";
import { Components, type Reference } from "./components";

/** A schema of JSON Schema 2020-12, as used by OpenAPI 3.1. */
export type Schema = Readonly<Record<string, unknown>>;

/** The example of RFC 9562, appendix A.6. */
export const EXAMPLE_ID = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";

/**
 * Our formats in terms that other tools know. Not `multipleOf: 0.01` for money: in binary arithmetic 1299.99 is no multiple of it, and
 * tools would refuse our responses.
 */
const FORMATS: Readonly<Record<string, Schema>> = {
  text: {},
  uuid: { format: "uuid", examples: [EXAMPLE_ID] },
  money: { format: "decimal" },
  password: { format: "password", description: "At most 72 bytes of UTF-8, and at most 30 combining marks in a row." },
};

const MAX_INT32 = 2 ** 31 - 1;

/** Converts contracts to the schemas that clients see. Those with a title become components. */
export class Schemas {
  readonly components = new Components();

  of(schema: TSchema): Schema {
    return schema.title === undefined ? this.inline(schema) : this.refer(schema.title, this.inline(schema));
  }

  /** The schema of a body: an object without the fields that come from elsewhere. */
  body(schema: TSchema, elsewhere: readonly string[]): Schema {
    const object = this.object(schema, elsewhere);
    return schema.title === undefined ? object : this.refer(schema.title, object);
  }

  /** Adds a component: "Order line" becomes OrderLine. */
  refer(title: string, schema: Schema): Reference {
    const name = title.replace(/(^| )(\w)/g, (_all, _space, letter: string) => letter.toUpperCase());
    return this.components.refer("schemas", name, schema);
  }

  /** An object schema without some of its fields. Integers `version` and `edits` are never shown: they are the ETag. */
  object(schema: TSchema, without: readonly string[] = []): Schema {
    const isTag = (name: string, field: TSchema): boolean => /^(version|edits)$/.test(name) && KindGuard.IsInteger(field);
    const shown = Object.entries(fieldsOf(schema)).filter(([name, field]) => !without.includes(name) && !isTag(name, field));
    return {
      ...schema,
      properties: Object.fromEntries(shown.map(([name, field]) => [name, this.of(field)])),
      required: shown.filter(([, field]) => !KindGuard.IsOptional(field)).map(([name]) => name),
    };
  }

  private inline(schema: TSchema): Schema {
    if (KindGuard.IsObject(schema)) return this.object(schema);
    if (KindGuard.IsArray(schema)) return { ...schema, items: this.of(schema.items) };
    if (KindGuard.IsUnion(schema)) return this.union(schema);
    if (KindGuard.IsInteger(schema)) return { ...schema, ...((schema.maximum ?? 0) > MAX_INT32 && { format: "int64" }) };
    const { format, lowercase: _, ...rest } = schema;
    return typeof format === "string" ? { ...(FORMATS[format] ?? { format }), ...rest } : rest;
  }

  /** Uses the shorter forms of JSON Schema where possible. */
  private union({ anyOf, ...rest }: TUnion): Schema {
    if (anyOf.every((part) => KindGuard.IsLiteral(part))) return { ...rest, type: "string", enum: anyOf.map((part) => part.const) };
    const parts = anyOf.map((part) => this.of(part));
    const [one, other] = parts;
    if (parts.length === 2 && typeof one?.["type"] === "string" && other?.["type"] === "null" && !("enum" in one))
      return { ...one, ...rest, type: [one["type"], "null"] };
    return { ...rest, anyOf: parts };
  }
}
