import { IncomingMessage } from "node:http";
import { Socket } from "node:net";
import { checkHeaders, dropExcessHeaders, isChunked } from "../../../../services/api/http/request";

function request(fields: number): IncomingMessage {
  const req = new IncomingMessage(new Socket());
  const names = ["transfer-encoding", ...Array.from({ length: fields - 1 }, (_, n) => `a${n}`)];
  req.rawHeaders = names.flatMap((name) => [name, name === "transfer-encoding" ? "chunked" : ""]);
  req.headers = Object.fromEntries(names.map((name) => [name, name === "transfer-encoding" ? "chunked" : ""]));
  return req;
}

it("a request with 100 header fields keeps them", () => {
  const req = request(100);
  dropExcessHeaders(req);
  expect(Object.keys(req.headers)).toHaveLength(100);
  expect(() => checkHeaders(req)).not.toThrow();
});

it("a request with more keeps only what is needed until it is refused", () => {
  const req = request(101);
  dropExcessHeaders(req);
  expect(req.rawHeaders).toEqual([]);
  expect(Object.keys(req.headers).length).toBeLessThan(10);
  expect(isChunked(req)).toBe(true);
  expect(() => checkHeaders(req)).toThrow("more than 100 header fields");
});
