import type { Fixture } from "./fixture";
import type { FuzzRequest } from "./request";
import type { Response } from "./send";

/** Remembers ids, ETags, tokens and links to next pages from a response. */
export function learn(fixture: Fixture, request: FuzzRequest, { status, headers, text }: Response): void {
  if (status < 200 || status >= 300 || request.method === "HEAD") return;
  if (headers.has("idempotent-replayed")) return; // it shows an earlier state
  const { line, who } = request;
  const next = /<([^>]*)>; rel="next"/.exec(headers.get("link") ?? "")?.[1];
  if (next !== undefined && next.length < 8_000) {
    const pages = fixture.pages.get(`${line} ${who}`) ?? [];
    fixture.pages.set(`${line} ${who}`, pages);
    fixture.remember(pages, next);
  }
  const body: unknown = /json/.test(headers.get("content-type") ?? "") && text !== "" ? JSON.parse(text) : undefined;
  if (typeof body !== "object" || body === null) return;
  const id = "id" in body ? String(body.id) : undefined; // absent if a fault has turned the request into one for a list
  const etag = headers.get("etag") ?? '"1"';
  if (line === "POST /products" && who === "seller" && id !== undefined) fixture.remember(fixture.products, { id, etag });
  if (line === "POST /orders" && who === "buyer" && id !== undefined) fixture.remember(fixture.orders, { id, etag });
  const key = request.headers.find(([name]) => name === "Idempotency-Key")?.[1];
  const json = request.body?.json;
  if (key !== undefined && json !== undefined && request.faults.length === 0)
    fixture.remember(fixture.keyed, { line, path: request.path, key, body: json });
  for (const list of [fixture.products, fixture.orders])
    for (const one of list) if (request.path.toLowerCase().endsWith(`/${one.id}`) && headers.has("etag")) one.etag = etag;
  if ("refresh_token" in body) fixture.remember(fixture.refreshTokens, String(body.refresh_token));
  const given = request.body?.json;
  if (
    line === "POST /register" &&
    id !== undefined &&
    typeof given === "object" &&
    given !== null &&
    "email" in given &&
    "password" in given
  )
    fixture.remember(fixture.loginAccounts, { id, email: String(given.email), password: String(given.password) });
}
