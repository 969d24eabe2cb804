import { Type } from "@sinclair/typebox";
import type { ServiceBroker } from "moleculer";
import { named } from "../../../contracts/contract";
import { ERRORS, isErrorCode } from "../../../contracts/errors";
import { openapi } from "../../../services/api/openapi/document";
import { Schemas } from "../../../services/api/openapi/schemas";
import { allRoutes } from "../../../services/api/routes/all";
import { Documentation } from "../../../testkit/openapi";

const unused = {} as unknown as ServiceBroker; // only requests need it
const routes = allRoutes(unused, { basePath: "", publicUrl: "https://shop.example.com" });
const INFO = { name: "shop", version: "1", description: "A shop", license: "MIT" };
const asSent = JSON.stringify(openapi(routes, INFO, ""));
const documentation = new Documentation(JSON.parse(asSent) as Documentation["document"]);
const { document, lines } = documentation;
const components = document.components!;

type Node = Record<string, any>;
const isNode = (value: unknown): value is Node => typeof value === "object" && value !== null;

/** Every object and array in the document, with its path. */
function* nodes(value: unknown = document, path = ""): Generator<[path: string, node: Node]> {
  if (!isNode(value)) return;
  yield [path, value];
  for (const [name, part] of Object.entries(value)) yield* nodes(part, `${path}/${name}`);
}

const entriesOf = (value: unknown): [string, unknown][] => Object.entries(isNode(value) ? value : {});

/** Where a schema has objects that have no name. The parts of an `allOf` need none: each belongs to the schema around it. */
function unnamed(schema: unknown, path: string): string[] {
  if (!isNode(schema) || "$ref" in schema) return [];
  const parts = ["properties", "oneOf", "anyOf"].flatMap((word) => entriesOf(schema[word]));
  const inside = [...parts, ["items", schema["items"]] as const].flatMap(([name, part]) => unnamed(part, `${path}/${name}`));
  return "properties" in schema ? [path, ...inside] : inside;
}

/** Every media type of every response: with the status and the content. */
const responses = lines.flatMap((line) =>
  Object.keys(documentation.operation(line).responses).flatMap((status) =>
    Object.entries(documentation.response(line, status)!.content ?? {}).map(([type, media]) => ({ line, status, type, media })),
  ),
);
const requests = lines.flatMap((line) =>
  Object.entries(documentation.operation(line).requestBody?.content ?? {}).map(([type, media]) => ({ line, type, media })),
);

it("the document has enough parts for the tests below to check something", () => {
  expect(lines.length).toBeGreaterThan(30);
  expect(responses.length).toBeGreaterThan(200);
  expect(requests.length).toBeGreaterThan(10);
});

describe("a reference", () => {
  const references = [...nodes()].filter(([, node]) => "$ref" in node);

  it("has no siblings, which tools understand differently", () => {
    expect(references.length).toBeGreaterThan(100);
    expect(references.filter(([, node]) => Object.keys(node).length > 1).map(([path]) => path)).toEqual([]);
  });

  it("leads to a component, and every component is referred to", () => {
    const { securitySchemes: _, ...shared } = components;
    const names = Object.entries(shared).flatMap(([kind, those]) => Object.keys(those).map((name) => `#/components/${kind}/${name}`));
    expect([...new Set(references.map(([, node]) => String(node["$ref"])))].toSorted()).toEqual(names.toSorted());
  });
});

describe("an object", () => {
  it("has a schema of its own in every request and response", () => {
    const places = [
      ...requests.map(({ line, media }) => [line, media.schema] as const),
      ...responses.map(({ line, status, media }) => [`${line} ${status}`, media.schema] as const),
    ];
    expect(places.flatMap(([place, schema]) => unnamed(schema, place))).toEqual([]);
  });

  it("has a schema of its own inside other objects", () => {
    const found = Object.entries(components["schemas"]!).flatMap(([name, schema]) => unnamed(schema, name).filter((path) => path !== name));
    expect(found).toEqual([]);
  });

  it.each(Object.entries(components["schemas"]!))("%s has a title and a description", (name, { title, description }: Node) => {
    expect(String(title).replaceAll(" ", "").toLowerCase()).toBe(name.toLowerCase());
    expect(description).toMatch(/^.{5,}$/);
  });

  it("can't have the name of another one", () => {
    const schemas = new Schemas();
    const lamp = named("Lamp", "A lamp.", { id: Type.Integer() });
    const other = named("Lamp", "A lamp.", { id: Type.String() });
    for (const same of [lamp, Type.Optional(lamp)]) expect(schemas.of(same)).toEqual({ $ref: "#/components/schemas/Lamp" });
    expect(() => schemas.of(other)).toThrow("two schemas of the OpenAPI document are called Lamp");
  });
});

describe("an error response", () => {
  it("has only codes of its status", () => {
    for (const line of lines)
      for (const [status, codes] of Object.entries(documentation.codes(line)))
        expect(codes.map((code) => isErrorCode(code) && ERRORS[code].status)).toEqual(codes.map(() => Number(status)));
  });

  const OF_ALL = { 429: ["TOO_MANY_REQUESTS"], 500: ["INTERNAL_ERROR"], 503: ["SERVICE_UNAVAILABLE"] };
  it.each([
    ["GET /products", { 400: ["BAD_REQUEST"] }],
    ["GET /me", { 400: ["BAD_REQUEST"], 401: ["UNAUTHENTICATED"] }],
    ["GET /admin/users", { 400: ["BAD_REQUEST"], 401: ["UNAUTHENTICATED"], 403: ["FORBIDDEN"], 404: ["USER_NOT_FOUND"] }],
    [
      "POST /orders",
      {
        400: ["MALFORMED_JSON", "BAD_REQUEST"],
        401: ["UNAUTHENTICATED"],
        404: ["PRODUCT_NOT_FOUND"],
        409: ["INSUFFICIENT_STOCK", "IDEMPOTENCY_IN_FLIGHT"],
        412: ["PRECONDITION_FAILED"],
        413: ["BODY_TOO_LARGE"],
        415: ["UNSUPPORTED_MEDIA_TYPE"],
        422: ["VALIDATION_ERROR", "IDEMPOTENCY_KEY_REUSED"],
      },
    ],
  ])("of %s has only its own codes", (line, own) => {
    expect(documentation.codes(line)).toEqual({ ...own, ...OF_ALL });
  });

  it("that many operations have is one component", () => {
    for (const line of ["GET /me", "POST /orders", "DELETE /products/{id}"])
      expect(documentation.operation(line).responses).toMatchObject({
        401: { $ref: "#/components/responses/Unauthenticated" },
        429: { $ref: "#/components/responses/TooManyRequests" },
      });
  });

  it("has the data of its codes, and of no others", () => {
    const data = Object.entries(components["schemas"]!).flatMap(([name, { allOf }]: [string, Node]) => {
      const [, own] = (allOf ?? []) as { properties: object; required: string[] }[];
      const members = Object.keys(own?.properties ?? {}).filter((member) => member !== "code");
      return members.map((member) => [name, member, own?.required.includes(member) ? "always" : "sometimes"]);
    });
    expect(data.toSorted()).toEqual([
      ["BadRequestProblem", "allowed", "sometimes"],
      ["InsufficientStockProblem", "shortages", "sometimes"],
      ["ServiceUnavailableProblem", "retry_after", "always"],
      ["TooManyRequestsProblem", "retry_after", "always"],
      ["ValidationErrorProblem", "errors", "always"],
    ]);
  });

  it("may not have unknown members", () => {
    const { value } = components["examples"]!["UNAUTHENTICATED"] as { value: object };
    const breaches = (body: object) => documentation.breachesOfResponse("GET /me", 401, "application/problem+json", body);
    expect(breaches(value)).toEqual([]);
    expect(breaches({ ...value, stack: "Error" })).toEqual([" must NOT have unevaluated properties"]);
    expect(breaches({ ...value, code: "FORBIDDEN" })).not.toEqual([]);
  });
});

describe("an example", () => {
  const all = responses.map(({ media, ...place }) => {
    const ofCodes = Object.values(media.examples ?? {}).map((example) => documentation.resolve(example).value);
    return { ...place, examples: media.example === undefined ? ofCodes : [media.example] };
  });

  it("is there for every response to a program; pages and their files are for browsers", () => {
    const without = all.filter(({ type, examples }) => /json|event-stream/.test(type) && examples.length === 0);
    expect(without.map(({ line, status }) => `${line} ${status}`)).toEqual([]);
  });

  it("of a response is valid", () => {
    const breaches = all.flatMap(({ line, status, type, examples }) =>
      examples.flatMap((example) => documentation.breachesOfResponse(line, status, type, example).map((one) => [line, status, one])),
    );
    expect(breaches).toEqual([]);
  });

  it("of a request is there for every JSON body, and valid", () => {
    const wrong = requests
      .filter(({ type }) => type === "application/json")
      .flatMap(({ line, type, media }) => documentation.breachesOfBody(line, type, media.example).map((one) => `${line}: ${one}`));
    expect(wrong).toEqual([]);
  });

  it("of a problem is the code's", () => {
    for (const { line, status, media } of responses)
      for (const [code, example] of Object.entries(media.examples ?? {}))
        expect([line, documentation.resolve(example).value]).toMatchObject([line, { code, status: Number(status) }]);
  });
});

describe("a description", () => {
  it("is there for every operation, tag, parameter and header", () => {
    const { tags } = document as unknown as { tags: object[] };
    const parts = [
      ...lines.map((line) => documentation.operation(line)),
      ...tags,
      ...lines.flatMap((line) => documentation.operation(line).parameters ?? []),
      ...Object.values(components["headers"]!),
    ];
    expect(parts.length).toBeGreaterThan(80);
    expect(parts.filter((part: { description?: string }) => !/.{5,}/.test(part.description ?? ""))).toEqual([]);
  });

  it("of an operation has a name for generated clients, and a tag that is described", () => {
    const { tags } = document as unknown as { tags: { name: string }[] };
    for (const line of lines) {
      const { operationId, tags: own, summary } = documentation.operation(line);
      expect(operationId).toMatch(/^[a-z]+([A-Z][a-z]+)*$/);
      expect(own).toHaveLength(1);
      expect(tags.map(({ name }) => name)).toContain(own[0]);
      expect(summary).not.toBe("");
    }
    const ids = lines.map((line) => documentation.operation(line).operationId);
    expect(ids).toHaveLength(new Set(ids).size);
  });
});
