import { Fixture } from "../fuzz/fixture";
import { judge } from "../fuzz/judge";
import { curl, encode, type FuzzRequest } from "../fuzz/request";
import { shrink } from "../fuzz/shrink";
import { testId } from "../../testkit/ids";
import { Documentation } from "../../testkit/openapi";
import { wholeNumber } from "../../testkit/whole-number";

const account = { id: testId(1), email: "a@b.test", password: "a password", token: "t" };
const fixture = new Fixture({ seller: account, buyer: account, admin: account, changer: account });
const request: FuzzRequest = {
  n: 1,
  line: "POST /products",
  method: "POST",
  path: "/products",
  query: [["a", "1"]],
  headers: [
    ["X-Request-Id", "fuzz-1"],
    ["Origin", "null"],
  ],
  who: "seller",
  hasHost: true,
  body: { json: { name: "x".repeat(100), tags: [{ a: 1, b: "it's" }, 7, 8], price: 1 }, coding: "gzip", chunked: true },
  faults: [],
};

it("a failing request is reduced to the part that makes it fail", async () => {
  let tries = 0;
  const least = await shrink(request, ["500"], ({ body }) => {
    tries++;
    return Promise.resolve(JSON.stringify(body?.json ?? null).includes('"b"'));
  });
  expect(least).toEqual({ ...request, query: [], headers: [["X-Request-Id", "fuzz-1"]], body: { json: { tags: [{ b: "i" }] } } });
  expect(tries).toBeLessThan(100);
});

it("a failure that does not come a second time is not reduced", async () => {
  expect(await shrink(request, ["500"], () => Promise.resolve(false))).toBeUndefined();
});

it.each<[string, Partial<FuzzRequest>, number]>([
  ["an invalid request that is accepted: without its fault it is valid", { faults: ["a bad name"], refusals: [422] }, 201],
  ["a valid request that is refused: when reduced it may be invalid", { faults: [] }, 422],
])("%s, so it is reported whole", async (_, change, status) => {
  const document = { paths: { "/products": { post: { tags: [], security: [], responses: {} } } } };
  jest.spyOn(globalThis, "fetch").mockResolvedValueOnce(Response.json(document));
  const documentation = await Documentation.of("http://shop");
  const failed = { ...request, ...change };
  const wrong = judge(failed, { status, headers: new Headers(), text: "" }, documentation);
  const fails = (less: FuzzRequest) =>
    Promise.resolve(judge(less, { status, headers: new Headers(), text: "" }, documentation).join() === wrong.join());
  expect(await shrink(failed, wrong, fails)).toBe(failed);
});

it.each(["abc", "", "0", "-1", "1.5", "1e3", "Infinity"])("the command-line number %j is refused", (text) => {
  expect(() => wholeNumber("requests", text)).toThrow("--requests must be a whole number of at least 1");
});

it("a command-line number may be as small as its option allows", () => {
  expect(wholeNumber("requests", "1")).toBe(1);
  expect(wholeNumber("seed", "0", 0)).toBe(0);
});

it("a request can be repeated with curl, including quotes", () => {
  const { coding: _coding, chunked: _chunked, ...body } = request.body!;
  const plain = { ...request, body: { ...body, json: { b: "it's" } } };
  expect(curl("http://shop", encode(plain, fixture))).toBe(
    `curl -sS -i --path-as-is -X POST -H 'X-Request-Id: fuzz-1' -H 'Origin: null' -H 'Authorization: Bearer t' -H 'Content-Type: application/json' --data-binary '{"b":"it'\\''s"}' 'http://shop/products?a=1'`,
  );
  expect(curl("http://shop", encode(request, fixture))).toMatch(
    /^echo H4sI\S+ \| base64 -d \| curl .* -H 'Content-Encoding: gzip' .*--data-binary @- /,
  );
});
