import type { ErrorObject, ValidateFunction } from "ajv";
import type { TArray, TObject, TSchema } from "@sinclair/typebox";
import type { FieldError, Literal } from "../contracts/errors";

/** Maximum number of errors that are listed for one value. A sender with more errors needs no complete list. */
const MAX_ERRORS = 20;
/** Maximum characters of a field's name that a response repeats. */
const MAX_NAME_LENGTH = 100;

const NO_ID = "must be a UUID";
const FORMATS: Record<string, string> = {
  "idn-email": "must be an e-mail address",
  password: "must have at most 72 bytes, no NUL, no lone surrogate and at most 30 combining marks in a row",
  text: "must not contain control characters other than tab and line feed, lone surrogates, or more than 30 combining marks in a row",
  money: "must have at most two decimals",
  uuid: NO_ID,
  "date-time": "must be an RFC 3339 date and time",
};

/** What Ajv says about one value: a sentence without its subject, and the values or the bound that would be accepted. */
export function describe(error: ErrorObject, schema?: TSchema): Omit<FieldError, "field"> {
  const allowed = schema && literalsOf(schema);
  if (allowed !== undefined) return { message: `must be one of ${allowed.join(", ")}`, allowed };
  const limit: unknown = error.params["limit"];
  return { message: sentenceOf(error, schema), ...(typeof limit === "number" && { limit }) };
}

/** The values of a schema that is a choice among literals; undefined for any other schema. */
function literalsOf(schema: TSchema): Literal[] | undefined {
  const parts: unknown = schema["anyOf"];
  const values: unknown = Array.isArray(parts)
    ? parts.map((part: unknown) => (isObject(part) ? part["const"] : undefined))
    : schema["enum"];
  return Array.isArray(values) && values.every(isLiteral) ? values : undefined;
}

const isLiteral = (value: unknown): value is Literal => value === null || ["string", "number", "boolean"].includes(typeof value);

function sentenceOf(error: ErrorObject, schema?: TSchema): string {
  if (error.keyword === "additionalProperties") return "is not a known field";
  if (error.keyword === "required") return "is required";
  if (error.keyword === "pattern") return "does not have the required format";
  if (error.keyword === "format") return FORMATS[String(error.params["format"])] ?? "has an invalid format";
  if (error.keyword === "not" && isObject(schema?.["not"])) return `must not be ${String(schema["not"]["const"])}`;
  return error.message ?? "is invalid";
}

/** The field that an Ajv error is about: `/items/0/quantity` (RFC 6901) as `items[0].quantity`. */
export function fieldOf(error: ErrorObject, parent = ""): string {
  const extra: unknown = error.params["additionalProperty"] ?? error.params["missingProperty"];
  const path = error.instancePath.split("/").slice(1);
  if (typeof extra === "string") path.push(extra);
  return path.reduce((name, part) => (/^\d+$/.test(part) ? `${name}[${part}]` : within(name, part)), parent);
}

const within = (parent: string, name: string): string => (parent === "" ? name : `${parent}.${name}`);

/**
 * Lists the errors of a value that breaks its contract: at most one per field, at most MAX_ERRORS in all. Ajv can either stop at the
 * first error or list every one, which for 34,000 invalid items takes longer than anything else a request can cause.
 * @param compile compiles a schema to stop at its first error
 */
export function listErrors(schema: TSchema, value: unknown, compile: (schema: TSchema) => ValidateFunction): FieldError[] {
  const errors = new Map<string, Omit<FieldError, "field">>();
  const isFull = (): boolean => errors.size >= MAX_ERRORS;
  const add = (field: string, error: Omit<FieldError, "field">): void => {
    const name = shortened(field);
    if (!errors.has(name) && !isFull()) errors.set(name, error);
  };

  const visit = (part: TSchema, given: unknown, field: string): void => {
    if (isFull()) return;
    if (isObjectSchema(part) && isObject(given)) visitObject(part, given, field);
    else if (isArraySchema(part) && Array.isArray(given) && hasAllowedSize(part, given)) visitItems(part, given, field);
    else visitWhole(part, given, field);
  };
  /** In Ajv's order: missing fields, unknown fields, and then the values of the others. */
  const visitObject = ({ properties, required = [], additionalProperties }: TObject, given: Fields, field: string): void => {
    for (const name of required) if (valueOf(given, name) === undefined) add(within(field, name), { message: "is required" });
    if (additionalProperties === false)
      for (const name in given) {
        if (isFull()) return;
        if (!Object.hasOwn(properties, name)) add(within(field, name), { message: "is not a known field" });
      }
    for (const [name, part] of Object.entries(properties)) {
      const its = valueOf(given, name);
      if (its !== undefined) visit(part, its, within(field, name));
    }
  };
  const visitItems = ({ items }: TArray, given: readonly unknown[], field: string): void => {
    for (let i = 0; i < given.length && !isFull(); i++) visit(items, given[i], `${field}[${i}]`);
  };
  /** For a value without parts, or of a wrong type or size. For a union, the errors of its first branch come first. */
  const visitWhole = (part: TSchema, given: unknown, field: string): void => {
    const validate = compile(part);
    if (validate(given)) return;
    const isId = part["format"] === "uuid"; // so that a number, too, gets "must be a UUID" instead of "must be string"
    for (const error of validate.errors ?? []) add(fieldOf(error, field), isId ? { message: NO_ID } : describe(error, part));
  };

  visit(schema, value, "");
  if (errors.size === 0) visitWhole(schema, value, ""); // broken by a keyword that is not checked above
  return [...errors].map(([field, error]) => ({ field, ...error }));
}

type Fields = Readonly<Record<string, unknown>>;
const isObject = (value: unknown): value is Fields => typeof value === "object" && value !== null && !Array.isArray(value);
/** Ignores inherited properties: every object has a `constructor`. */
const valueOf = (given: Fields, name: string): unknown => (Object.hasOwn(given, name) ? given[name] : undefined);

// By their keywords, not by TypeBox's symbols, which are lost when Moleculer copies a schema.
const isObjectSchema = (schema: TSchema): schema is TObject => schema["type"] === "object" && isObject(schema["properties"]);
const isArraySchema = (schema: TSchema): schema is TArray => schema["type"] === "array" && isObject(schema["items"]);

/** Sizes are checked first: an array that is too long is refused without looking at its items. */
const hasAllowedSize = ({ minItems = 0, maxItems = Infinity }: TArray, { length }: readonly unknown[]): boolean =>
  length >= minItems && length <= maxItems;

const shortened = (field: string): string =>
  field.length <= MAX_NAME_LENGTH ? field : `${field.slice(0, MAX_NAME_LENGTH - 1).toWellFormed()}…`;
