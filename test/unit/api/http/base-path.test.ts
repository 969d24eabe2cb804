import { IncomingMessage } from "node:http";
import { Socket } from "node:net";
import { isOutside, leaveBasePath, withBasePath } from "../../../../services/api/http/base-path";

/** What is left of a target below `/shop`. */
function below(target: string): string | undefined {
  const req = new IncomingMessage(new Socket());
  req.url = target;
  leaveBasePath(req, "/shop");
  return req.url;
}

it.each([
  ["/shop/products", "/products"],
  ["/shop/products/1?a=/shop", "/products/1?a=/shop"],
  ["/shop/shop", "/shop"],
  ["/shop", "/"],
  ["/.well-known/oauth-authorization-server/shop", "/.well-known/oauth-authorization-server"],
  ["/shop/", "/"],
  ["/shop?a=b", "/?a=b"],
  ["/shop//x", "//x"],
  ["*", "*"],
  ["shop/products", "shop/products"],
  ["", ""],
])("the target %j is %j below the base path", (target, relative) => {
  expect(below(target)).toBe(relative);
  expect(isOutside(relative)).toBe(false);
});

it.each([
  "/",
  "/.well-known/oauth-authorization-server",
  "/.well-known/jwks.json/shop",
  "/products",
  "/shopping",
  "/shop.html",
  "/shop%2Fproducts",
  "/SHOP/products",
  "//shop/products",
  "/x/shop/products",
])("the target %j is outside of the base path", (target) => {
  expect(below(target)).toBe(`/..${target}`);
  expect(isOutside(`/..${target}`)).toBe(true);
});

it("the paths in Location and Link begin with the base path, and other headers are unchanged", () => {
  const headers = { Location: "/me", Link: '</products?cursor=%3C%2F>; rel="next"', ETag: '"1"' };
  expect(withBasePath(headers, "/shop")).toEqual({ Location: "/shop/me", Link: '</shop/products?cursor=%3C%2F>; rel="next"', ETag: '"1"' });
  expect(withBasePath({ ETag: '"1"' }, "/shop")).toEqual({ ETag: '"1"' });
});
