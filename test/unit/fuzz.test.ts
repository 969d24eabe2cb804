import { curl, wire, type FuzzRequest } from "../fuzz/request";
import { shrink } from "../fuzz/shrink";
import { World } from "../fuzz/world";

const account = { id: 1, email: "a@b.test", password: "a password", token: "t" };
const world = new World({ seller: account, buyer: account, admin: account, changer: account });
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

it("a failing request is reduced to what it fails by", async () => {
  let tries = 0;
  const least = await shrink(request, ({ body }) => {
    tries++;
    return Promise.resolve(JSON.stringify(body?.json ?? null).includes('"b"'));
  });
  expect(least).toEqual({ ...request, query: [], headers: [["X-Request-Id", "fuzz-1"]], body: { json: { tags: [{ b: "i" }] } } });
  expect(tries).toBeLessThan(100);
});

it("a failure that does not come a second time is not reduced", async () => {
  expect(await shrink(request, () => Promise.resolve(false))).toBeUndefined();
});

it("what is sent can be sent by curl, quotes and all", () => {
  const { coding: _coding, chunked: _chunked, ...body } = request.body!;
  const plain = { ...request, body: { ...body, json: { b: "it's" } } };
  expect(curl("http://shop", wire(plain, world))).toBe(
    `curl -sS -i --path-as-is -X POST -H 'X-Request-Id: fuzz-1' -H 'Origin: null' -H 'Authorization: Bearer t' -H 'Content-Type: application/json' --data-binary '{"b":"it'\\''s"}' 'http://shop/products?a=1'`,
  );
  expect(curl("http://shop", wire(request, world))).toMatch(
    /^echo H4sI\S+ \| base64 -d \| curl .* -H 'Content-Encoding: gzip' .*--data-binary @- /,
  );
});
