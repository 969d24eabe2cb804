import { KindGuard, type TSchema } from "@sinclair/typebox";
import { hasFewMarks, withoutInvisible } from "../../../broker/validator";
import { fieldsOf } from "../../../contracts/contract";

type Normalize = (value: string) => string;

/** How the strings of a contract are normalized when they enter, by field. */
export type TextFields = readonly (readonly [field: string, normalize: Normalize])[];

/**
 * The same text can be written in several ways, which people can't tell apart: so it is stored and compared in one. Text is NFC (Unicode
 * Standard Annex 15) without invisible characters and surrounding white space, and its line endings are line feeds; e-mail addresses are
 * trimmed, and passwords are NFC, but keep their spaces.
 */
export const textFields = (schema: TSchema): TextFields =>
  Object.entries(fieldsOf(schema)).flatMap(([name, field]) => {
    const normalize = name === "email" ? email : normalizerOf(field);
    return normalize === undefined ? [] : [[name, normalize] as const];
  });

function normalizerOf(schema: TSchema): Normalize | undefined {
  if (KindGuard.IsUnion(schema)) return schema.anyOf.map(normalizerOf).find((normalize) => normalize !== undefined);
  if (!KindGuard.IsString(schema)) return undefined;
  return schema.format === "text" ? text : schema.format === "password" ? password : undefined;
}

/** A text with a longer row of marks stays as it is, since normalizing it would take long, and is then refused by its format. */
const nfc: Normalize = (value) => (hasFewMarks(value) ? value.normalize("NFC") : value);
const text: Normalize = (value) => trim(nfc(withoutInvisible(value).replaceAll("\r\n", "\n")));
const email: Normalize = (value) => nfc(value).trim();
const password: Normalize = nfc;

/** White space, the Braille blank, and joiners, which join nothing at the end of a text. */
const BLANK = /^[\s\u2800\u200c\u200d]$/;
/** Any other character than those and variation selectors and the like, which nobody sees alone. */
const HAS_VISIBLE = /[^\s\u2800\p{DI}]/u;

function trim(text: string): string {
  if (!HAS_VISIBLE.test(text)) return "";
  let [start, end] = [0, text.length];
  while (BLANK.test(text.charAt(start))) start++;
  while (BLANK.test(text.charAt(end - 1))) end--;
  return text.slice(start, end);
}

/** The values with these fields normalized; the same object if nothing changes. Values other than objects are returned as they are. */
export function normalized<T>(values: T, fields: TextFields): T {
  if (typeof values !== "object" || values === null) return values;
  const changed = fields.flatMap(([name, normalize]): [string, string][] => {
    const value: unknown = Object.hasOwn(values, name) ? Reflect.get(values, name) : undefined;
    if (typeof value !== "string") return [];
    const usual = normalize(value);
    return usual === value ? [] : [[name, usual]];
  });
  return changed.length === 0 ? values : { ...values, ...Object.fromEntries(changed) };
}
