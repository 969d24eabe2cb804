import fc from "fast-check";
import { misspelled, testId } from "../../testkit/ids";

/** A schema of an OpenAPI document. */
export type Schema = Readonly<Record<string, unknown>>;
/** Returns a number from 0 to below 1, like Math.random. */
export type Random = () => number;

export const int = (random: Random, min: number, max: number): number => min + Math.floor(random() * (max - min + 1));
export const pick = <T>(random: Random, list: readonly T[]): T => {
  const one = list[int(random, 0, list.length - 1)];
  if (one === undefined) throw new Error("the list is empty");
  return one;
};
export const chance = (random: Random, probability: number): boolean => random() < probability;

const ALPHABETS = ["abcdefghijklmnopqrstuvwxyz", "ABC xyz 0123456789", "aé漢字ßñ", "🙂👍a", "%_\\'\"<>&;/?#[]{}", "\t\n ab"];
const LETTERS = Array.from("abcdefghijklmnopqrstuvwxyz0123456789");
const HEX = Array.from("0123456789abcdef");
const isObject = (value: unknown): value is Schema => typeof value === "object" && value !== null && !Array.isArray(value);
const numberOf = (schema: Schema, name: string, fallback: number): number => {
  const value = schema[name];
  return typeof value === "number" ? value : fallback;
};

/** Generates values for the schemas of a document. */
export class Values {
  constructor(
    private readonly document: object,
    private readonly random: Random,
  ) {}

  /** Resolves references, and picks one branch of a union. */
  resolve(schema: Schema): Schema {
    const ref = schema["$ref"];
    if (typeof ref === "string") {
      const found = ref
        .slice(2)
        .split("/")
        .reduce<unknown>((part, name) => (isObject(part) ? part[name] : undefined), this.document);
      return isObject(found) ? this.resolve(found) : {};
    }
    for (const word of ["anyOf", "oneOf"])
      if (Array.isArray(schema[word])) return this.resolve(pick(this.random, (schema[word] as unknown[]).filter(isObject)));
    return schema;
  }

  valid(given: Schema): unknown {
    const schema = this.resolve(given);
    if ("const" in schema) return schema["const"];
    if (Array.isArray(schema["enum"])) return pick(this.random, schema["enum"] as unknown[]);
    const type: unknown = Array.isArray(schema["type"]) ? pick(this.random, schema["type"] as unknown[]) : schema["type"];
    switch (type) {
      case "object":
        return this.object(schema);
      case "array": {
        const min = numberOf(schema, "minItems", 0);
        const length = Math.min(numberOf(schema, "maxItems", 100), chance(this.random, 0.05) ? 100 : int(this.random, min, min + 3));
        return Array.from({ length }, () => this.valid(isObject(schema["items"]) ? schema["items"] : {}));
      }
      case "string":
        return this.string(schema);
      case "integer":
        return this.integer(schema);
      case "number":
        return this.number(schema);
      case "boolean":
        return chance(this.random, 0.5);
      default:
        return null;
    }
  }

  private object(schema: Schema): Record<string, unknown> {
    const required = Array.isArray(schema["required"]) ? (schema["required"] as unknown[]) : [];
    const fields = Object.entries(propertiesOf(schema)).filter(([name]) => required.includes(name) || chance(this.random, 0.5));
    return Object.fromEntries(fields.map(([name, field]) => [name, this.valid(field)]));
  }

  private string(schema: Schema): string {
    const max = numberOf(schema, "maxLength", 40);
    const min = numberOf(schema, "minLength", 0);
    switch (schema["format"]) {
      case "idn-email":
        return `${this.letters(int(this.random, 1, 20))}@${this.letters(int(this.random, 1, 20))}.test`;
      case "password":
        return this.letters(int(this.random, min, 72));
      case "uuid":
        return [8, 4, 4, 4, 12].map((length) => Array.from({ length }, () => pick(this.random, HEX)).join("")).join("-");
      case "date-time":
        return new Date(int(this.random, 0, 4e12)).toISOString();
      default:
    }
    const pattern = schema["pattern"];
    if (typeof pattern === "string" && pattern.startsWith("^")) {
      const seed = int(this.random, 0, 2 ** 31 - 1);
      return fc.sample(fc.stringMatching(new RegExp(pattern, "u"), { size: "small" }), { numRuns: 1, seed })[0] ?? "";
    }
    const length = chance(this.random, 0.1) ? max : int(this.random, min, Math.min(max, min + 12));
    const characters = Array.from(pick(this.random, ALPHABETS));
    const text = Array.from({ length }, () => pick(this.random, characters)).join("");
    return typeof pattern === "string" && !new RegExp(pattern, "u").test(text) ? this.letters(Math.max(1, length)) : text;
  }

  letters(length: number): string {
    return Array.from({ length }, () => pick(this.random, LETTERS)).join("");
  }

  private integer(schema: Schema): number {
    const min = numberOf(schema, "minimum", -1_000);
    const max = numberOf(schema, "maximum", 1_000_000);
    const edge = pick(this.random, [min, max, ...(min <= 0 && max >= 0 ? [0] : [])]);
    return chance(this.random, 0.1) ? edge : int(this.random, min, Math.min(max, min + 100));
  }

  private number(schema: Schema): number {
    const min = numberOf(schema, "minimum", 0);
    const max = numberOf(schema, "maximum", 1_000_000);
    if (chance(this.random, 0.1)) return pick(this.random, [min, max]);
    return Math.round((min + this.random() * Math.min(max - min, 5_000)) * 100) / 100;
  }

  /** A value that is probably invalid for this schema. */
  broken(given: Schema): unknown {
    const schema = this.resolve(given);
    const max = numberOf(schema, "maximum", Number.MAX_SAFE_INTEGER);
    const maxLength = numberOf(schema, "maxLength", 1_000);
    const ofType: Record<string, unknown[]> = {
      string: ["x".repeat(maxLength + 1), "漢".repeat(maxLength + 1), "a\0b", "\ud800", "\u0007", ""],
      integer: [numberOf(schema, "minimum", 0) - 1, max + 1, 1.5, 1e308, -1e308, 9007199254740993, "1", Number.MIN_VALUE],
      number: [numberOf(schema, "minimum", 0) - 1, max + 1, 0.001, 10.000000001, 1e308, "1.00"],
      boolean: ["true", 1, "yes"],
      array: [[], Array.from({ length: 101 }, () => ({})), Array.from({ length: 5_000 }, () => 1), [null], [[]], {}],
      object: [[], {}, "object", { __proto__: null, constructor: 1 }],
    };
    const type = Array.isArray(schema["type"]) ? schema["type"][0] : schema["type"];
    const anything = [null, true, -1, 0, 1.5, "x", [], {}, [{}], { a: { b: {} } }];
    const ids = schema["format"] === "uuid" ? misspelled(testId(1)) : [];
    return pick(this.random, [...anything, ...(typeof type === "string" ? (ofType[type] ?? []) : []), ...ids]);
  }
}

export const propertiesOf = (schema: Schema): Record<string, Schema> =>
  isObject(schema["properties"]) ? (schema["properties"] as Record<string, Schema>) : {};
