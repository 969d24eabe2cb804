import { createReadStream, createWriteStream } from "node:fs";
import { createInterface } from "node:readline";
import { finished } from "node:stream/promises";
import { once } from "node:events";
import Ajv, { type ValidateFunction } from "ajv";
import { messageOf } from "../error-message";
import { SCHEMAS, type Operation } from "./operation";

const ajv = new Ajv({ strict: true });
const validators = new Map<string, ValidateFunction>();
for (const [kind, schema] of Object.entries(SCHEMAS)) validators.set(kind, ajv.compile(schema));

function isOperation(value: unknown): value is Operation {
  const kind: unknown = typeof value === "object" && value !== null && "kind" in value ? value.kind : undefined;
  const validate = typeof kind === "string" ? validators.get(kind) : undefined;
  if (validate === undefined) throw new Error(`there is no operation of the kind ${String(kind)}`);
  if (validate(value)) return true;
  throw new Error(ajv.errorsText(validate.errors));
}

/** Parses lines. Keeps repeated texts (ids, users, codes) only once; otherwise a million operations would not fit into memory. */
class Parser {
  private readonly texts = new Map<string, string>();

  /** @throws if a line is no operation */
  parse(line: string): Operation {
    const value: unknown = JSON.parse(line);
    if (!isOperation(value)) throw new Error("it is no operation"); // not reached: isOperation throws with the reason
    this.share(value);
    return value;
  }

  private share(value: object): void {
    for (const [name, part] of Object.entries<unknown>({ ...value })) {
      if (typeof part === "string") Reflect.set(value, name, this.shared(part));
      else if (typeof part === "object" && part !== null) this.share(part);
    }
  }

  private shared(text: string): string {
    const known = this.texts.get(text);
    if (known === undefined) this.texts.set(text, text);
    return known ?? text;
  }
}

/** Reads a history, one operation per line. @throws with the number of a line that is no operation */
export async function readHistory(file: string): Promise<Operation[]> {
  const parser = new Parser();
  const operations: Operation[] = [];
  let number = 0;
  for await (const line of createInterface({ input: createReadStream(file), crlfDelay: Infinity })) {
    number++;
    if (line === "") continue;
    try {
      operations.push(parser.parse(line));
    } catch (error) {
      throw new Error(`line ${number} of ${file}: ${messageOf(error)}`, { cause: error });
    }
  }
  return operations;
}

/** Writes a history, one operation per line. */
export async function writeHistory(file: string, operations: Iterable<Operation>): Promise<void> {
  const out = createWriteStream(file);
  const isDone = finished(out);
  for (const operation of operations) if (!out.write(`${JSON.stringify(operation)}\n`)) await Promise.race([once(out, "drain"), isDone]);
  out.end();
  await isDone;
}
