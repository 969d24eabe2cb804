import { Readable } from "node:stream";
import { followOrder, walkOrders } from "../../../../testkit/history/readers";
import { operationOf, Recorder, type Exchange } from "../../../../testkit/history/recorder";

const tokenOf = (claims: object): string => `e30.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.sign`;
const ADA = tokenOf({ sub: "ada", role: "user" });

const order = {
  id: "o1",
  user_id: "ada",
  status: "PENDING",
  total_price: 12.5,
  items: [],
  reason: null,
  history: [{ status: "PENDING", at: "2026-01-01T00:00:00.000Z" }],
  created_at: "2026-01-01T00:00:00.000Z",
  updated_at: "2026-01-01T00:00:00.000Z",
};
const product = { id: "p1", name: "Lamp", price: 2.5, quantity: -1, seller_id: "ada" };

const exchange = (
  method: string,
  path: string,
  status: number | undefined,
  more: Partial<Exchange> & { reply?: object; etag?: string } = {},
): Exchange => {
  const { reply = {}, etag = path.startsWith("/products") ? '"2-3"' : '"3"', ...rest } = more;
  const headers = new Headers({ etag, ...(path === "/orders" && { "idempotent-replayed": "true" }) });
  const response = status === undefined ? undefined : { status, headers, text: JSON.stringify(reply) };
  return { method, path, token: ADA, begin: 1, end: 2, response, ...rest };
};

describe("the operation of a request in a history", () => {
  it("an accepted order is ok, with its key, lines, the order shown, and the exact body", () => {
    const items = [{ product_id: "p1", quantity: 2 }];
    const accepted = exchange("POST", "/orders", 201, { reply: order, body: { items }, headers: { "idempotency-key": "k" } });
    expect(operationOf(accepted)).toEqual({
      kind: "order.place",
      begin: 1,
      end: 2,
      outcome: "ok",
      status: 201,
      user: "ada",
      key: "k",
      lines: items,
      seen: { id: "o1", version: 3, status: "PENDING", total: 12.5, created: Date.parse(order.created_at), history: ["PENDING"] },
      digest: JSON.stringify(order),
      replayed: true,
    });
  });

  it.each([undefined, 502, 503])("a response of %s has an unknown outcome and no end", (status) => {
    const operation = operationOf(exchange("POST", "/products/p1/stock", status, { body: { delta: -2 } }));
    expect(operation).toEqual({ kind: "product.adjust", begin: 1, outcome: "unknown", user: "ada", product: "p1", delta: -2 });
  });

  it("a refusal has failed, with its status and code", () => {
    const refused = exchange("PATCH", "/products/p1", 412, {
      body: { price: 3 },
      headers: { "if-match": '"2-7"' },
      reply: { code: "PRECONDITION_FAILED" },
    });
    expect(operationOf(refused)).toMatchObject({
      kind: "product.patch",
      outcome: "failed",
      end: 2,
      status: 412,
      code: "PRECONDITION_FAILED",
      if_match: 2,
      price: 3,
    });
  });

  it.each([
    ["POST", "/products", { price: 2.5, quantity: 4 }, "product.create"],
    ["GET", "/products/p1", undefined, "product.read"],
    ["PATCH", "/products/p1", { price: 2.5 }, "product.patch"],
    ["POST", "/products/p1/stock", { delta: 1 }, "product.adjust"],
  ])("%s %s shows a product, even an impossible one", (method, path, body, kind) => {
    const seen = { id: "p1", version: 3, edits: 2, quantity: -1, price: 2.5 };
    expect(operationOf(exchange(method, path, 200, { body, reply: product }))).toMatchObject({ kind, outcome: "ok", seen });
  });

  it.each([
    ["GET", "/orders/o1", "order.read"],
    ["POST", "/orders/o1/cancel", "order.cancel"],
  ])("%s %s shows an order, and whether it is parked", (method, path, kind) => {
    const parked = operationOf(exchange(method, path, 200, { reply: { ...order, reason: "parked: it waits" } }));
    expect(parked).toMatchObject({ kind, order: "o1", seen: { id: "o1", version: 3, status: "PENDING", parked: true } });
  });

  it.each([
    ["GET", "/products/p1", 304],
    ["GET", "/products?limit=2", 200],
    ["GET", "/orders?limit=2", 200],
    ["GET", "/health", 200],
    ["POST", "/token", 200],
    ["GET", "/admin/consistency", 200],
  ])("%s %s with %s is not recorded", (method, path, status) => {
    expect(operationOf(exchange(method, path, status))).toBeUndefined();
  });

  it("an admin is distinguished from others, and without a token the user is empty", () => {
    const as = (token?: string) => operationOf({ ...exchange("GET", "/orders/o1", 404), token });
    expect(as(tokenOf({ sub: "root", role: "admin" }))).toMatchObject({ user: "root", admin: true });
    expect(as(ADA)).not.toHaveProperty("admin");
    expect(as()).toMatchObject({ user: "" });
  });

  it.each([
    ["a body that is no order", { ...order, status: "LOST" }, '"3"'],
    ["no version", order, ""],
  ])("a success with %s is an error", (_what, reply, etag) => {
    const broken = exchange("GET", "/orders/o1", 200, { reply, etag });
    expect(() => operationOf(broken)).toThrow("unexpected form, can't be recorded");
  });
});

describe("a recorder", () => {
  it("that is full returns no history, since a part could be mistaken for the whole; after a restart it records again", () => {
    const recorder = new Recorder(2);
    const read = exchange("GET", "/orders/o1", 200, { reply: order });
    recorder.record(read);
    recorder.record(read);
    expect(recorder.operations).toHaveLength(2);
    recorder.record(read);
    expect(recorder.operations).toBeUndefined();
    recorder.restart();
    expect(recorder.operations).toEqual([]);
  });
});

describe("reading one's own orders page by page", () => {
  const page = (id: string, next_cursor: string | null) => ({
    status: 200,
    text: JSON.stringify({ items: [{ ...order, id }], next_cursor }),
  });

  it("continues after each page, and is complete at the last", async () => {
    const paths: string[] = [];
    const pages = [page("o2", "c1"), page("o1", null)];
    const walk = await walkOrders((path) => (paths.push(path), Promise.resolve(pages.shift())), ADA, 1);
    expect(paths).toEqual(["/orders?limit=1", "/orders?limit=1&cursor=c1"]);
    expect(walk).toMatchObject({ kind: "order.list", outcome: "ok", user: "ada", complete: true });
    expect(walk.pages.map(({ items }) => items.map(({ id }) => id))).toEqual([["o2"], ["o1"]]);
  });

  it("ends before a page that fails, and is not complete; without any page its outcome is unknown", async () => {
    const pages = [page("o2", "c1"), { status: 503, text: "" }];
    expect(await walkOrders(() => Promise.resolve(pages.shift()), ADA, 1)).toMatchObject({ outcome: "ok", complete: false });
    const none = await walkOrders(() => Promise.resolve(undefined), ADA, 1);
    expect(none).toMatchObject({ outcome: "unknown", complete: false, pages: [] });
    expect(none).not.toHaveProperty("end");
  });
});

describe("a followed order", () => {
  const EVENTS = [
    "retry: 2000\n\n",
    'id: 1\nevent: status\ndata: {"status":"PENDING"}\n\nid: 2\nevent: sta',
    'tus\ndata: {"status":"REJECTED"}\n\n: \n\n',
  ];
  const follow = (body: AsyncIterable<Uint8Array>, signal = new AbortController().signal, status = 200) =>
    followOrder(() => Promise.resolve({ status, body }), ADA, "o1", signal);
  const bytes = async function* (texts: readonly string[], error?: Error): AsyncGenerator<Uint8Array> {
    for (const text of texts) yield Promise.resolve(Buffer.from(text));
    if (error) throw error;
  };

  it("has each complete event once, and was closed by the server", async () => {
    const stream = await follow(bytes(EVENTS));
    expect(stream).toMatchObject({ kind: "order.stream", outcome: "ok", status: 200, user: "ada", order: "o1", closed: "server" });
    expect(stream.events.map(({ id, status }) => [id, status])).toEqual([
      [1, "PENDING"],
      [2, "REJECTED"],
    ]);
  });

  it("whose connection is lost is cut, and an incomplete last event is left out", async () => {
    const stream = await follow(bytes(EVENTS.slice(0, 2), new Error("reset")));
    expect(stream).toMatchObject({ outcome: "ok", closed: "cut", events: [{ id: 1 }] });
  });

  it("whose client disconnects was closed by the client", async () => {
    const gone = new AbortController();
    const body = Readable.from(bytes(EVENTS.slice(0, 1)), { signal: gone.signal });
    gone.abort();
    expect(await follow(body, gone.signal)).toMatchObject({ closed: "client" });
  });

  it.each([
    [204, "failed"],
    [404, "failed"],
    [503, "unknown"],
  ])("with the response %s is %s", async (status, outcome) => {
    expect(await follow(bytes([]), undefined, status)).toMatchObject({ outcome, events: [] });
  });
});
