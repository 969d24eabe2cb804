import Ajv, { _ } from "ajv";
import addFormats from "ajv-formats";
import type { Static, TSchema } from "@sinclair/typebox";
import { Validators } from "moleculer";
import { UUID } from "../contracts/contract";
import type { FieldError } from "../contracts/errors";
import { describe, fieldOf, listErrors } from "./field-errors";

const BCRYPT_LIMIT_BYTES = 72;
/** Without characters that are invisible (Default_Ignorable_Code_Point) or blank: addresses that look the same must be the same. */
const EMAIL =
  /^(?!.*[\p{DI}\u2800])[^\s@\p{C}"(),:;<>[\\\]]{1,64}@(?:[\p{L}\p{N}](?:[\p{L}\p{N}\p{M}-]{0,61}[\p{L}\p{N}\p{M}])?\.)+[\p{L}\p{N}\p{M}-]{2,63}$/u;

/** C0, DEL and C1, except tab and line feed. A control character takes six bytes as JSON, and terminals interpret it. */
const CONTROL = /[\0-\x08\x0b-\x1f\x7f-\x9f]/;

/**
 * Characters that nobody sees: zero-width spaces, fillers, and those that change the direction of text, with which a name could pretend to be
 * another one. Joiners and variation selectors are not among them, since emoji and several scripts need them.
 */
const INVISIBLE = /[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0]/g;

/** A text without invisible characters. */
export const withoutInvisible = (text: string): string => text.replace(INVISIBLE, "");

/**
 * Whether a text has at most 30 combining marks in a row. No language needs more. Normalization sorts the marks of a row, and so takes a
 * second for 50,000 of them. Stricter than the Stream-Safe Text Format (Unicode Standard Annex 15, section 13), which counts only marks that
 * are sorted.
 */
export const hasFewMarks = (text: string): boolean => !/(?<!\p{M})\p{M}{31}/u.test(text);

/** Adds our formats, and the keyword that converts ids to lower case in place. */
function extended(ajv: Ajv): Ajv {
  addFormats(ajv, ["date-time"]);
  ajv.addFormat("idn-email", (text) => EMAIL.test(text) && hasFewMarks(text));
  // A lone surrogate is not a character and would be stored as another one.
  ajv.addFormat("text", (text) => !CONTROL.test(text) && text.isWellFormed() && hasFewMarks(text));
  // NUL ends a C string: other implementations of bcrypt would ignore what follows it.
  ajv.addFormat(
    "password",
    (text) => Buffer.byteLength(text) <= BCRYPT_LIMIT_BYTES && !text.includes("\0") && text.isWellFormed() && hasFewMarks(text),
  );
  // multipleOf 0.01 fails on binary fractions such as 1299.99, and a tolerance would let a third decimal pass.
  ajv.addFormat("money", { type: "number", validate: (amount: number) => Math.round(amount * 100) / 100 === amount });
  ajv.addFormat("uuid", UUID);
  ajv.addKeyword({
    keyword: "lowercase",
    type: "string",
    schemaType: "boolean",
    modifying: true,
    code({ gen, data, it: { parentData, parentDataProperty } }) {
      const lower = gen.const("lower", _`${data}.toLowerCase()`);
      // Write only if needed: nearly all ids are in lower case already, and the value may be read-only.
      gen.if(_`${lower} !== ${data} && ${parentData} !== undefined`, () => gen.code(_`${parentData}[${parentDataProperty}] = ${lower}`));
    },
  });
  return ajv;
}

// Both stop at the first error: a complete list would cost the receiver more than it cost the sender. `verbose` is off, since it would put
// submitted values into errors.
const exact = extended(new Ajv({ coerceTypes: false, strict: true, allowUnionTypes: true, useDefaults: false }));
/** Query parameters are strings: here, and only here, "20" is accepted as 20. */
const coercing = extended(new Ajv({ coerceTypes: true, strict: true, allowUnionTypes: true }));

const errorsOf = (schema: TSchema, value: unknown): FieldError[] => listErrors(schema, value, (part) => exact.compile(part));

/** Validates a value by a contract, and converts its ids to lower case in place. @returns at most 20 errors; none if the value is valid */
export function check(schema: TSchema, value: unknown): FieldError[] {
  return exact.compile(schema)(value) ? [] : errorsOf(schema, value);
}

/** Like `check`, but as a type guard. */
export const matches = <S extends TSchema>(schema: S, value: unknown): value is Static<S> => exact.compile(schema)(value);

/** Converts the strings of a query to the types of the contract, in place. @returns the first error; undefined if it is valid */
export function coerce(schema: TSchema, query: Record<string, unknown>): FieldError | undefined {
  const validate = coercing.compile(schema);
  if (validate(query)) return undefined;
  const [error] = validate.errors ?? [];
  // The values have been converted by now, so the complete list begins with the same error, in more detail.
  return errorsOf(schema, query)[0] ?? (error && { field: fieldOf(error), ...describe(error) });
}

const isContract = (schema: object): boolean => "type" in schema && schema.type === "object" && "properties" in schema;

/** The params of an action or event by name, whether their schema is a contract's or one of fastest-validator. */
export const paramsByName = (schema: object): unknown => (isContract(schema) && "properties" in schema ? schema.properties : schema);

/**
 * Moleculer's validator, based on the contracts, for actions and events. Moleculer's own services ($node) keep their
 * fastest-validator schemas.
 */
export class ContractValidator extends Validators.Fastest {
  override compile(schema: Record<string, unknown>): ReturnType<Validators.Fastest["compile"]> {
    if (!isContract(schema)) return super.compile(schema);
    const validate = exact.compile(schema);
    const checker = (value: unknown) => (validate(value) ? true : errorsOf(schema as TSchema, value));
    return checker as ReturnType<Validators.Fastest["compile"]>; // Moleculer's type lacks the list of errors
  }
}
