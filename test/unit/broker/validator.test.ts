import { gzipSync } from "node:zlib";
import Ajv, { type ErrorObject } from "ajv";
import fc from "fast-check";
import type { TSchema } from "@sinclair/typebox";
import { check, coerce, ContractValidator } from "../../../broker/validator";
import * as accounts from "../../../contracts/accounts";
import { MAX_ID, NIL_ID } from "../../../contracts/contract";
import type { FieldError } from "../../../contracts/errors";
import * as orders from "../../../contracts/orders";
import * as products from "../../../contracts/products";
import * as users from "../../../contracts/users";
import { misspelled, testId } from "../../../testkit/ids";

const BODY_LIMIT = 100 * 1024;

/** The shortest of several measurements in ms, since the machine may be busy. */
function quickest(work: () => unknown, tries = 7): number {
  let least = Infinity;
  for (let i = 0; i < tries; i++) {
    const since = process.cpuUsage();
    work();
    const { user, system } = process.cpuUsage(since);
    least = Math.min(least, (user + system) / 1_000);
  }
  return least;
}

/** A parsed body that repeats a part as often as the size limit allows. */
const filled = (head: string, part: (i: number) => string, tail: string): unknown => {
  let text = head;
  for (let i = 0, next = part(0); text.length + next.length + tail.length <= BODY_LIMIT; next = `,${part(++i)}`) text += next;
  return JSON.parse(text + tail);
};

const LARGE: readonly (readonly [string, TSchema, unknown])[] = [
  ["34,000 empty items", orders.create.params, filled('{"items":[', () => "{}", "]}")],
  ["50,000 numbers for items", orders.create.params, filled('{"items":[', () => "1", "]}")],
  ["items with many unknown fields", orders.create.params, filled('{"items":[{', (i) => `"${i.toString(36)}":0`, "}]}")],
  ["10,000 unknown fields", users.register.params, filled("{", (i) => `"${i.toString(36)}":0`, "}")],
  ["unknown fields with long names", users.register.params, filled("{", (i) => `"${i}${"x".repeat(1_000)}":0`, "}")],
  ["deep arrays", products.create.params, JSON.parse(`{"name":${"[".repeat(51_000)}${"]".repeat(51_000)}}`)],
  ["deep objects", users.token.params, JSON.parse(`${'{"email":'.repeat(9_000)}1${"}".repeat(9_000)}`)],
  ["a long text", products.create.params, { name: "x".repeat(BODY_LIMIT), price: 1, quantity: 1 }],
  ["a long text of half characters", products.create.params, { name: "\ud800".repeat(BODY_LIMIT / 6), price: 1, quantity: 1 }],
  ["a long e-mail address", users.register.params, { email: `${"a.".repeat(50_000)}@`, password: "x".repeat(8) }],
  ["an e-mail address of many labels", users.register.params, { email: `a@${"a-".repeat(126)}`, password: "x".repeat(8) }],
  ["a long password", users.register.params, { email: "a@b.co", password: "é".repeat(50_000) }],
];

it.each(LARGE)("%s: refused in far less CPU time than a complete list of errors takes, with at most 20 errors", (_what, schema, value) => {
  let errors: FieldError[] = [];
  expect(quickest(() => (errors = check(schema, value)))).toBeLessThan(100); // the complete list took 300 ms
  expect(errors.length).toBeGreaterThan(0);
  expect(errors.length).toBeLessThanOrEqual(20);
  expect(JSON.stringify(errors).length).toBeLessThan(4_000);
});

it("a decoded body is refused by its size, although the gateway received only 154 bytes", () => {
  const body = `{"items":[${"{},".repeat(34_099)}{}]}`;
  expect(gzipSync(body).length).toBeLessThan(160);
  expect(check(orders.create.params, JSON.parse(body))).toEqual([
    { field: "items", message: "must NOT have more than 100 items", limit: 100 },
  ]);
});

it("the values of a choice, and the bound that is exceeded, come with the error", () => {
  const update = (role: unknown) => check(accounts.update.params, { id: testId(1), role });
  expect(update("owner")).toEqual([{ field: "role", message: "must be one of user, admin", allowed: ["user", "admin"] }]);
  expect(update(7)).toEqual(update("owner"));
  expect(check(orders.create.params, { items: [{ product_id: testId(1), quantity: 0 }] })).toEqual([
    { field: "items[0].quantity", message: "must be >= 1", limit: 1 },
  ]);
});

it("an error repeats at most 100 characters of a field's name, and only whole ones", () => {
  const [long] = check(users.register.params, { email: "a@b.co", password: "12345678", ["n".repeat(5_000)]: 1 });
  expect(long).toEqual({ field: `${"n".repeat(99)}…`, message: "is not a known field" });
  const [cut] = check(users.register.params, { email: "a@b.co", password: "12345678", [`${"n".repeat(98)}${"🙂".repeat(50)}`]: 1 });
  expect(cut?.field.isWellFormed()).toBe(true);
  const [nested] = check(orders.create.params, { items: [{ product_id: testId(1), quantity: 1, ["n".repeat(500)]: 1 }] });
  expect(nested?.field).toBe(`items[0].${"n".repeat(90)}…`);
});

it("an inherited property is neither accepted as a field nor reported as unknown", () => {
  expect(check(users.register.params, JSON.parse('{"__proto__":{"email":"a@b.co"},"constructor":1}'))).toEqual([
    { field: "email", message: "is required" },
    { field: "password", message: "is required" },
    { field: "__proto__", message: "is not a known field" },
    { field: "constructor", message: "is not a known field" },
  ]);
});

it("actions and events are refused with the same errors as a body, even after Moleculer has copied their schema", () => {
  const copy = JSON.parse(JSON.stringify(orders.create.params)) as Record<string, unknown>;
  const validate = new ContractValidator({}).compile(copy) as (value: unknown) => unknown;
  const wrong = { items: [{ product_id: 0 }, { quantity: "1" }], other: 1 };
  expect(validate(wrong)).toEqual(check(orders.create.params, wrong));
  expect(validate(wrong)).toHaveLength(5);
  expect(validate({ items: [{ product_id: testId(1), quantity: 1 }] })).toBe(true);
});

describe("an id", () => {
  const ID = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
  const validate = new ContractValidator({}).compile(JSON.parse(JSON.stringify(orders.create.params)) as Record<string, unknown>);

  it("in upper case is converted to lower case in place, at any depth, in a query and in an action's parameters", () => {
    const body = () => ({
      items: [ID, ID.toUpperCase(), "017F22e2-79b0-7cc3-98c4-dc0c0c07398f"].map((product_id) => ({ product_id, quantity: 1 })),
    });
    const [checked, validated] = [body(), body()];
    expect([check(orders.create.params, checked), validate(validated)]).toEqual([[], true]);
    for (const { items } of [checked, validated]) expect(items.map((item) => item.product_id)).toEqual([ID, ID, ID]);
    const query = { seller_id: ID.toUpperCase() };
    expect([coerce(products.list.params, query), query]).toEqual([undefined, { seller_id: ID }]);
    const log = { actor: ID.toUpperCase() };
    expect([coerce(accounts.auditLog.params, log), log]).toEqual([undefined, { actor: ID }]);
  });

  it("in lower case is not written to, since the value may be frozen", () => {
    const frozen = Object.freeze({ id: ID });
    expect(check(orders.get.params, frozen)).toEqual([]);
  });

  it("may have any version, and may be the nil or the max UUID", () => {
    for (const id of [NIL_ID, MAX_ID, "c232ab00-9414-11ec-b3c8-9f6bdeced846"]) expect(check(orders.get.params, { id })).toEqual([]);
  });

  it.each<unknown>([...misspelled(ID), 1, 0, null, true, [ID, ID], {}])("can't be %j, which gives a single error", (id) => {
    expect(check(orders.get.params, { id })).toEqual([{ field: "id", message: "must be a UUID" }]);
    expect(check(orders.create.params, { items: [{ product_id: id, quantity: 1 }] })).toEqual([
      { field: "items[0].product_id", message: "must be a UUID" },
    ]);
    expect(coerce(products.list.params, { seller_id: String(id) })).toEqual({ field: "seller_id", message: "must be a UUID" });
  });
});

it("a query reports its first error, and accepts numbers and booleans as text", () => {
  expect(coerce(products.list.params, { limit: "0", in_stock: "maybe" })?.field).toBe("in_stock");
  const query = { limit: "5", in_stock: "true" };
  expect(coerce(products.list.params, query)).toBeUndefined();
  expect(query).toEqual({ limit: 5, in_stock: true });
});

describe("for a small value", () => {
  /** Every error of Ajv, as listed before there was a limit. */
  const ajv = new Ajv({
    allErrors: true,
    allowUnionTypes: true,
    verbose: true,
    formats: { uuid: /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i, text: true, money: true, password: true, "idn-email": true },
    keywords: ["lowercase"],
  });
  function all(schema: TSchema, value: unknown): FieldError[] {
    const validate = ajv.compile(schema);
    const byField = new Map<string, string>();
    if (!validate(value)) for (const error of validate.errors ?? []) if (!byField.has(name(error))) byField.set(name(error), text(error));
    return [...byField].slice(0, 20).map(([field, message]) => ({ field, message }));
  }
  const name = ({ params, instancePath }: ErrorObject): string => {
    const extra = (params["additionalProperty"] ?? params["missingProperty"]) as string | undefined;
    return [...instancePath.split("/").slice(1), ...(extra === undefined ? [] : [extra])].reduce(
      (path, part) => (/^\d+$/.test(part) ? `${path}[${part}]` : path ? `${path}.${part}` : part),
      "",
    );
  };
  const WORDS: Record<string, string> = {
    additionalProperties: "is not a known field",
    required: "is required",
    pattern: "does not have the required format",
    not: "must not be 0",
  };
  const text = ({ keyword, message = "", parentSchema }: ErrorObject): string =>
    parentSchema?.["format"] === "uuid" ? "must be a UUID" : (WORDS[keyword] ?? message);

  const other = fc.constantFrom<unknown>(null, 0, 1, -1, 1.5, 20_000, 1e300, "", "x", "x".repeat(300), true, [], {}, [[]], [{}], { a: 1 });
  const scalar = fc.oneof({ weight: 4, arbitrary: other }, fc.constantFrom(testId(1), MAX_ID.toUpperCase(), "f".repeat(36)));
  const line = fc.record({ product_id: scalar, quantity: scalar, note: scalar }, { requiredKeys: [] });
  const order = fc.record(
    { items: fc.oneof(fc.array(fc.oneof(line, scalar), { minLength: 1, maxLength: 30 }), scalar), note: scalar, idempotency_key: scalar },
    { requiredKeys: [] },
  );
  const product = fc.record(
    { name: scalar, price: scalar, quantity: scalar, description: scalar, category: scalar, sku: scalar, id: scalar, extra: scalar },
    { requiredKeys: [] },
  );

  it.each([
    ["an order", orders.create.params, order],
    ["a product", products.create.params, product],
    ["a stock adjustment", products.adjust.params, fc.record({ id: scalar, delta: scalar, reason: scalar }, { requiredKeys: [] })],
    [
      "a settled order",
      products.stockSettled.params,
      fc.record({ orders: fc.array(fc.oneof(line, scalar), { minLength: 1, maxLength: 3 }) }),
    ],
  ] as const)("%s, the list is that of Ajv, in its order", (_what, schema, values) => {
    fc.assert(
      fc.property(values, (value) => {
        const mine = check(schema, value);
        const reference = all(schema, value);
        // In a union, Ajv stops at the first error of each branch here, and lists all of them there.
        if (schema === products.stockSettled.params) expect(mine.length > 0).toBe(reference.length > 0);
        else expect(mine.map(({ field, message }) => ({ field, message }))).toEqual(reference);
      }),
      { numRuns: 500 },
    );
  });
});

it.each([
  [0, { message: "must not be 0" }],
  [-2_147_483_648, { message: "must be >= -1000000000", limit: -1_000_000_000 }],
  [1_000_000_001, { message: "must be <= 1000000000", limit: 1_000_000_000 }],
])("a stock adjustment of %d is refused with the reason", (delta, error) => {
  expect(check(products.adjust.params, { id: testId(1), delta })).toEqual([{ field: "delta", ...error }]);
});
