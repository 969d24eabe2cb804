import type { ValidateFunction } from "ajv";
import Ajv2020 from "ajv/dist/2020";
import addFormats from "ajv-formats";

export interface Operation {
  operationId: string;
  tags: string[];
  summary: string;
  description?: string;
  security: object[];
  parameters?: {
    name: string;
    in: string;
    required?: boolean;
    description?: string;
    example?: unknown;
    schema: { enum?: unknown[]; examples?: unknown[] };
  }[];
  requestBody?: { content: Record<string, Media> };
  responses: Record<string, DocumentedResponse>;
}

export interface DocumentedResponse {
  headers?: Record<string, object>;
  content?: Record<string, Media>;
}

/** A body of one media type. */
interface Media {
  schema: Schema;
  example?: unknown;
  examples?: Record<string, { value?: unknown }>;
}

type Reference = Record<"$ref", string>;

/** The parts of a schema that tests read. */
export interface Schema {
  $ref?: string;
  oneOf?: Reference[];
  allOf?: Schema[];
  properties?: Record<string, { enum?: string[] }>;
  required?: string[];
}

/** The part of the document where a reference leads to. */
const partsOf = ({ $ref }: Reference): string[] => $ref.slice(2).split("/");

/** A received response. */
export interface Served {
  status: number;
  headers: Headers;
  /** Parsed if it is JSON. */
  body: unknown;
}

/** JSON Schema 2020-12, 7.3.5: never a URN. */
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Headers that only some of the responses have. */
const SOMETIMES = ["Link", "Idempotent-Replayed"];

/** A gateway's /openapi.json, to compare its responses with. */
export class Documentation {
  private readonly ajv = addFormats(new Ajv2020({ strict: false, allErrors: true }), ["date-time", "int64"]);

  private readonly compiled = new Map<string, ValidateFunction>();
  private readonly paths: readonly { line: string; method: string; path: RegExp }[];

  constructor(
    readonly document: { paths: Record<string, Record<string, Operation>>; components?: Record<string, Record<string, object>> },
  ) {
    for (const known of ["decimal", "password", "idn-email"]) this.ajv.addFormat(known, true);
    this.ajv.addFormat("uuid", UUID);
    this.ajv.addSchema(document, "openapi");
    this.paths = this.lines.map((line) => {
      const [method = "", template = ""] = line.split(" ");
      return { line, method, path: new RegExp(`^${template.replace(/[.]/g, "\\.").replace(/\{\w+\}/g, "[^/]+")}$`) };
    });
  }

  static async of(url: string): Promise<Documentation> {
    return new Documentation((await (await fetch(`${url}/openapi.json`)).json()) as Documentation["document"]);
  }

  /** `GET /orders/{id}` and the like. */
  get lines(): string[] {
    return Object.entries(this.document.paths).flatMap(([path, item]) =>
      Object.keys(item).map((method) => `${method.toUpperCase()} ${path}`),
    );
  }

  operation(line: string): Operation {
    const [, path, method] = pointerOf(line);
    const operation = this.document.paths[path]?.[method];
    if (operation === undefined) throw new Error(`${line} is not documented`);
    return operation;
  }

  /** The component that a part of the document refers to, or the part itself. */
  resolve<T extends object>(part: T): T {
    if (!("$ref" in part)) return part;
    return partsOf(part as unknown as Reference).reduce<unknown>((at, name) => (at as Record<string, unknown>)[name], this.document) as T;
  }

  /** A documented response; undefined if the status is not documented. */
  response(line: string, status: number | string): DocumentedResponse | undefined {
    const found = this.operation(line).responses[status];
    return found && this.resolve(found);
  }

  /** The codes of an operation's problems, by status. */
  codes(line: string): Record<string, string[]> {
    return Object.fromEntries(
      Object.keys(this.operation(line).responses).flatMap((status): [string, string[]][] => {
        const schema = this.response(line, status)?.content?.["application/problem+json"]?.schema;
        if (schema === undefined) return [];
        return [[status, (schema.oneOf ?? [schema]).flatMap((problem) => this.codesOf(problem))]];
      }),
    );
  }

  private codesOf(problem: Schema): string[] {
    return this.resolve(problem).allOf?.flatMap(({ properties }) => properties?.["code"]?.enum ?? []) ?? [];
  }

  /** The operation of an actual request target without its query. */
  lineOf(method: string, target: string): string | undefined {
    const [path = ""] = target.split("?");
    return this.paths.find((one) => one.method === method && one.path.test(path))?.line;
  }

  /** How a response differs from its documentation; empty if it doesn't. */
  differences(line: string, { status, headers, body }: Served): string[] {
    const said = this.response(line, status);
    if (said === undefined) return [`${status} is not documented`];
    const missing = Object.keys(said.headers ?? {}).filter((name) => !SOMETIMES.includes(name) && !headers.has(name));
    return [...missing.map((name) => `${name} is missing`), ...this.differencesOfBody(line, said.content, { status, headers, body })];
  }

  private differencesOfBody(line: string, content: DocumentedResponse["content"], { status, headers, body }: Served): string[] {
    const type = headers.get("content-type")?.split(";")[0];
    if (content === undefined) return status !== 304 && type !== undefined ? [`${type} where no body is documented`] : [];
    const key = Object.keys(content).find((candidate) => candidate.split(";")[0] === type);
    if (key === undefined) return [`${type ?? "no type"} is not documented`];
    return this.breachesOfResponse(line, status, key, body);
  }

  /** How a response's body breaks its schema. */
  breachesOfResponse(line: string, status: number | string, type: string, body: unknown): string[] {
    const found: object = this.operation(line).responses[status] ?? {};
    const at = "$ref" in found ? partsOf(found as Reference) : [...pointerOf(line), "responses", String(status)];
    return this.breaches([...at, "content", type, "schema"], body);
  }

  /** How a request's body breaks its schema. */
  breachesOfBody(line: string, type: string, body: unknown): string[] {
    return this.breaches([...pointerOf(line), "requestBody", "content", type, "schema"], body);
  }

  private breaches(where: string[], value: unknown): string[] {
    const pointer = where.map((part) => encodeURIComponent(part.replaceAll("~", "~0").replaceAll("/", "~1"))).join("/");
    let validate = this.compiled.get(pointer);
    if (validate === undefined) this.compiled.set(pointer, (validate = this.ajv.compile({ $ref: `openapi#/${pointer}` })));
    return validate(value) ? [] : (validate.errors ?? []).map((error) => `${error.instancePath} ${error.message ?? ""}`);
  }
}

/** The place of an operation in the document. */
function pointerOf(line: string): ["paths", path: string, method: string] {
  const [method = "", path = ""] = line.split(" ");
  return ["paths", path, method.toLowerCase()];
}
