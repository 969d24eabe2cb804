import Ajv, { type ErrorObject } from "ajv";
import addFormats from "ajv-formats";
import type { Static, TSchema } from "@sinclair/typebox";
import { Validators } from "moleculer";
import type { FieldError } from "../contracts/errors";

const UTF8_LIMIT_OF_BCRYPT = 72;
const EMAIL = /^[^\s@\p{C}"(),:;<>[\\\]]{1,64}@(?:[\p{L}\p{N}](?:[\p{L}\p{N}\p{M}-]{0,61}[\p{L}\p{N}\p{M}])?\.)+[\p{L}\p{N}\p{M}-]{2,63}$/u;

/** C0, DEL and C1, but for tab and line feed. A control character takes six bytes as JSON, and terminals and logs obey it. */
const CONTROL = /[\0-\x08\x0b-\x1f\x7f-\x9f]/;

function formats(ajv: Ajv): Ajv {
  addFormats(ajv, ["date-time"]);
  ajv.addFormat("idn-email", EMAIL);
  // A lone surrogate is no character: it would be stored as another one.
  ajv.addFormat("text", (text) => !CONTROL.test(text) && text.isWellFormed());
  // NUL ends a C string: what stands behind it would not count in other implementations of bcrypt.
  ajv.addFormat("password", (text) => Buffer.byteLength(text) <= UTF8_LIMIT_OF_BCRYPT && !text.includes("\0") && text.isWellFormed());
  // multipleOf 0.01 fails on binary fractions such as 1299.99, and a tolerance would let a third decimal pass.
  ajv.addFormat("money", { type: "number", validate: (amount: number) => Math.round(amount * 100) / 100 === amount });
  return ajv;
}

const MESSAGES: Record<string, string> = {
  "idn-email": "must be an e-mail address",
  password: "must have at most 72 bytes, no NUL and no half a character",
  text: "must not contain control characters other than tab and line feed, or half a character",
  money: "must have at most two decimals",
  "date-time": "must be a date and time of RFC 3339",
};

// allErrors is capped by the size of the body; verbose stays off, so that a submitted value never gets into an error.
const exact = formats(new Ajv({ allErrors: true, coerceTypes: false, strict: true, allowUnionTypes: true, useDefaults: false }));
/** Query parameters are strings: here, and only here, "20" counts as 20. */
const coercing = formats(new Ajv({ allErrors: true, coerceTypes: true, strict: true, allowUnionTypes: true }));

/** `/items/0/quantity` (RFC 6901) as `items[0].quantity`. */
function fieldName(error: ErrorObject): string {
  const extra: unknown = error.params["additionalProperty"] ?? error.params["missingProperty"];
  const path = error.instancePath.split("/").slice(1);
  if (typeof extra === "string") path.push(extra);
  return path.reduce((name, part) => (/^\d+$/.test(part) ? `${name}[${part}]` : name ? `${name}.${part}` : part), "");
}

function describe(error: ErrorObject): string {
  if (error.keyword === "additionalProperties") return "is not a known field";
  if (error.keyword === "required") return "is required";
  if (error.keyword === "pattern") return "has characters or a form that are not allowed";
  if (error.keyword === "format") return MESSAGES[String(error.params["format"])] ?? "has a wrong form";
  return error.message ?? "is not valid";
}

function fieldErrors(errors: readonly ErrorObject[]): FieldError[] {
  // A union reports each of its branches and then itself: the shortest true thing to say is one line a field.
  const byField = new Map<string, string>();
  for (const error of errors) if (!byField.has(fieldName(error))) byField.set(fieldName(error), describe(error));
  return [...byField].slice(0, 20).map(([field, message]) => ({ field, message }));
}

/** Checks a value against a contract; the list of what is wrong is empty where nothing is. */
export function check(schema: TSchema, value: unknown): FieldError[] {
  const validate = exact.compile(schema);
  return validate(value) ? [] : fieldErrors(validate.errors ?? []);
}

/** As `check`, as a guard of the type. */
export const matches = <S extends TSchema>(schema: S, value: unknown): value is Static<S> => exact.compile(schema)(value);

/** Turns the strings of a query into the types of the contract, in place, and tells what is wrong. */
export function coerce(schema: TSchema, query: Record<string, unknown>): FieldError[] {
  const validate = coercing.compile(schema);
  return validate(query) ? [] : fieldErrors(validate.errors ?? []);
}

const isContract = (schema: Record<string, unknown>): boolean => schema["type"] === "object" && "properties" in schema;

/**
 * Moleculer's validator over the contracts, for actions and for events. Moleculer's own services ($node) keep their
 * fastest-validator schemas.
 */
export class ContractValidator extends Validators.Fastest {
  override compile(schema: Record<string, unknown>): ReturnType<Validators.Fastest["compile"]> {
    if (!isContract(schema)) return super.compile(schema);
    const validate = exact.compile(schema);
    const checker = (value: unknown) => (validate(value) ? true : fieldErrors(validate.errors ?? []));
    return checker as ReturnType<Validators.Fastest["compile"]>; // Moleculer's type forgets the list of errors
  }
}
