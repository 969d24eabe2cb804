import fc from "fast-check";
import type { ServiceBroker } from "moleculer";
import { Client as Postgres } from "pg";
import { call } from "../../../broker/contract";
import { compareIds, type Params, type Result } from "../../../contracts/contract";
import * as orders from "../../../contracts/orders";
import * as products from "../../../contracts/products";
import type { Role } from "../../../contracts/users";
import { until } from "../../../testkit/until";
import type { Client } from "../../../testkit/client";
import { testId, UUID_V7 } from "../../../testkit/ids";
import { startShop, type Shop } from "../../../testkit/shop";

let shop: Shop, broker: ServiceBroker, database: Postgres, client: Client;

const as = (id: string, role: Role = "user") => ({ meta: { user: { id, role } } });
const SELLER = as(testId(1));
const ADMIN = as(testId(2), "admin");
/** The id of a seller that no other test uses, so that the seller's products are a list of their own. */
let lastUser = 2;
const somebody = (): string => testId(++lastUser);

type NewProduct = Partial<Params<typeof products.create>>;
const make = (product: NewProduct = {}, caller = SELLER) =>
  call(broker, products.create, { name: "Lamp", price: 19.99, quantity: 50, ...product }, caller);
const read = (id: string) => call(broker, products.get, { id });
const adjust = (id: string, delta: number, caller = SELLER) => call(broker, products.adjust, { id, delta }, caller);
const ledger = async (id: string) => (await call(broker, products.ledger, { id, limit: 100 }, SELLER)).items;
const patch = (changes: Params<typeof products.update>, caller = SELLER) => call(broker, products.update, changes, caller);

beforeAll(async () => {
  shop = await startShop();
  broker = shop.node("products");
  client = shop.client();
  await client.signUp();
  database = new Postgres(shop.databases.products.url);
  await database.connect();
});
afterAll(async () => {
  await database.end();
  await shop.stop();
});

/** Reads all pages of a list. */
async function pages(params: Params<typeof products.list>, between: () => Promise<unknown> = () => Promise.resolve()) {
  const items: Result<typeof products.list>["items"] = [];
  for (let cursor: string | undefined; ;) {
    const page = await call(broker, products.list, { ...params, ...(cursor !== undefined && { cursor }) });
    items.push(...page.items);
    if (page.next_cursor === null) return items;
    cursor = page.next_cursor;
    await between();
  }
}

describe("a product", () => {
  it("with only the required fields has null for the others, belongs to its creator, and starts its ledger", async () => {
    const { created_at, updated_at, ...product } = await make({ quantity: 7 });
    const rest = { description: null, category: null, sku: null, seller_id: testId(1), version: 1, edits: 1 };
    expect(product).toEqual({ id: expect.stringMatching(UUID_V7), name: "Lamp", price: 19.99, quantity: 7, ...rest });
    expect(created_at).toBe(updated_at);
    expect(await ledger(product.id)).toMatchObject([{ delta: 7, balance: 7, order_id: null }]);
    expect(await ledger((await make({ quantity: 0 })).id)).toEqual([]);
  });

  it("is returned to everyone as it was created, under its Location, without the parts of its ETag", async () => {
    const body = { name: "Ünï 😀", price: 9_999_999.99, quantity: 1e9, description: "d\n\te", category: "c", sku: "s" };
    const created = await client.post("/products", body);
    expect([created.status, created.headers.get("etag")]).toEqual([201, '"1-1"']);
    expect(created.body).toMatchObject(body);
    for (const part of ["version", "edits"]) expect(created.body).not.toHaveProperty(part);
    const location = created.headers.get("location")!;
    for (const path of [location, `${location}/`]) expect((await shop.client().get(path)).body).toEqual(created.body);
  });

  const MAX = { name: 200, description: 5_000, category: 100, sku: 64 } as const;
  it.each(Object.entries(MAX))("has a %s of at most %i characters, however many bytes they take", async (field, most) => {
    expect((await make({ [field]: "😀".repeat(most) }))[field as keyof typeof MAX]).toBe("😀".repeat(most));
    await expect(make({ [field]: "x".repeat(most + 1) })).rejects.toMatchObject({ type: "VALIDATION_ERROR" });
  });

  const WRONG = [{ name: " \t\n" }, { name: "" }, { price: 10_000_000 }, { quantity: 1_000_000_001 }, { category: "" }, { sku: "" }];
  it.each<NewProduct>(WRONG)("with %j is refused", async (product) => {
    await expect(make(product)).rejects.toMatchObject({ type: "VALIDATION_ERROR", code: 422 });
  });

  it("has exactly the given price to the cent, whatever it is", async () => {
    const price = (cents: number): string => `${Math.floor(cents / 100)}.${String(cents % 100).padStart(2, "0")}`;
    const everyCent = fc.asyncProperty(fc.integer({ min: 0, max: 999_999_999 }), async (cents) => {
      const { body } = await client.post("/products", undefined, { raw: `{"name":"x","quantity":1,"price":${price(cents)}}` });
      expect(Number(body["price"]).toFixed(2)).toBe(price(cents));
      const { rows } = await database.query("select price_cents::int from products where id = $1", [body["id"]]);
      expect(rows).toEqual([{ price_cents: cents }]);
    });
    await fc.assert(everyCent, { numRuns: 100, examples: [[435], [1005], [129999], [999_999_999], [1]] });
  });

  it("never has its price rounded: a third decimal is refused", async () => {
    const mills = fc.integer({ min: 1, max: 99_999_999 }).filter((mills) => mills % 10 !== 0);
    const thirds = fc.asyncProperty(mills, async (mills) => {
      await expect(make({ price: mills / 1_000 })).rejects.toMatchObject({ type: "VALIDATION_ERROR" });
    });
    await fc.assert(thirds, { numRuns: 100 });
  });

  it.each(["\0", "\u0001", "\u001b", "\r", "\x7f", "\x85", "\x9f"])("has no control character %j in any text", async (control) => {
    for (const field of Object.keys(MAX)) {
      const { status, body } = await client.post("/products", { name: "Lamp", price: 1, quantity: 1, [field]: `a${control}b` });
      expect([status, body["errors"]]).toEqual([422, [{ field, message: expect.stringContaining("control characters") }]]);
    }
    const id = await client.createProduct();
    expect((await client.post(`/products/${id}/stock`, { delta: 1, reason: `a${control}b` })).status).toBe(422);
    expect((await client.get(`/products?q=${encodeURIComponent(`a${control}b`)}`)).status).toBe(400);
    await expect(make({ name: control.repeat(3) })).rejects.toMatchObject({ type: "VALIDATION_ERROR" }); // the service checks it as well
  });

  it("keeps tabs and line feeds, and CRLF as a line feed: length limits and searches apply to the stored text", async () => {
    const description = `${"x\r\n".repeat(2_499)}xx`; // 7,499 characters as sent, 5,000 as stored
    const created = await client.post("/products", { name: "a\tb\r\nc", price: 1, quantity: 1, description });
    expect([created.status, created.body["name"], created.body["description"]]).toEqual([201, "a\tb\nc", `${"x\n".repeat(2_499)}xx`]);
    const path = `/products/${created.body["id"]}`;
    expect((await client.patch(path, { name: "d\r\n\r\ne" })).body["name"]).toBe("d\n\ne");
    expect((await client.get(`/products?q=${encodeURIComponent("d\r\n\r\ne")}`)).body["items"]).toMatchObject([{ name: "d\n\ne" }]);
    await client.post(`${path}/stock`, { delta: 1, reason: "f\r\ng" });
    expect((await client.get(`${path}/stock`)).body["items"]).toMatchObject([{ reason: "f\ng" }, {}]);
    await client.delete(path);
  });

  it("whose name has a lone surrogate is refused, or stored as in the response", async () => {
    const raw = String.raw`{"name":"\ud800","price":1,"quantity":1}`;
    const { status, body } = await client.post("/products", undefined, { raw });
    expect([201, 422]).toContain(status);
    if (status === 201) expect((await client.get(`/products/${body["id"]}`)).body["name"]).toBe(body["name"]);
  });
});

describe("a patch", () => {
  it("changes the given fields, clears those that are null, leaves the rest, and creates a new version", async () => {
    const before = await make({ description: "d", category: "c", sku: "s" });
    const after = await patch({ id: before.id, price: 5.05, description: null, category: "k" });
    const changed = { price: 5.05, description: null, category: "k", version: 2, edits: 2 };
    expect(after).toMatchObject({ name: "Lamp", sku: "s", quantity: 50, ...changed });
    expect(after.updated_at >= before.updated_at).toBe(true);
    expect(await read(before.id)).toEqual(after);
  });

  const REFUSED = [{ name: null }, { price: null }, { price: 0.001 }, { name: " " }, { quantity: 1 }];
  it.each(REFUSED)("%j is refused and changes nothing", async (changes) => {
    const before = await make();
    await expect(patch({ id: before.id, ...(changes as object) })).rejects.toMatchObject({ type: "VALIDATION_ERROR" });
    expect(await read(before.id)).toEqual(before);
  });

  it("of twenty at once on one version: one succeeds, and the others get that it is stale", async () => {
    const { id } = await make();
    const tried = await Promise.allSettled(Array.from({ length: 20 }, (_, i) => patch({ id, tags: [{ edits: 1, version: 1 }], price: i })));
    expect(tried.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    for (const one of tried) if (one.status === "rejected") expect(one.reason).toMatchObject({ type: "PRECONDITION_FAILED" });
    expect((await read(id)).version).toBe(2);
  });

  it.each([
    ['"7-7", "1-1"', 200],
    ['"1-7"', 200],
    ["*", 200],
    ['"2-1"', 412],
    ['"1"', 412],
    ['W/"1-1"', 412],
    ["1-1", 412],
    ['"1-"', 412],
    ['"1-1-1"', 412],
  ])("with If-Match %s on a new product → %i", async (tag, expected) => {
    const path = `/products/${await client.createProduct()}`;
    const { status, headers, body } = await client.patch(path, { price: 2 }, { headers: { "If-Match": tag } });
    expect([status, headers.get("etag")]).toEqual([expected, expected === 200 ? '"2-2"' : null]);
    if (expected === 412) expect(body["detail"]).toMatch(tag === '"2-1"' ? /has changed/ : /in quotes and without W/);
    expect((await client.get(path)).body["price"]).toBe(expected === 200 ? 2 : 19.99);
  });
});

describe("If-Match with the current ETag", () => {
  it("lets a change of the stock through, and with the ETag before it not the next one", async () => {
    const path = `/products/${await client.createProduct()}`;
    const adjustIf = (tag: string) => client.post(`${path}/stock`, { delta: 1 }, { headers: { "If-Match": tag } });
    const first = await adjustIf('"1-1"');
    expect([first.status, first.headers.get("etag")]).toEqual([200, '"1-2"']);
    for (const tag of ['"1-1"', '"2-2"', '"2"', '"999999999999999-2"']) expect((await adjustIf(tag)).status).toBe(412);
    expect((await adjustIf('"1-1", "1-2"')).headers.get("etag")).toBe('"1-3"');
  });

  it("lets a DELETE through, and with the ETag before a PATCH it does not", async () => {
    const path = `/products/${await client.createProduct()}`;
    const deleteIf = (tag: string) => client.delete(path, { headers: { "If-Match": tag } });
    await client.patch(path, { price: 2 });
    expect([(await deleteIf('"1-1"')).status, (await deleteIf('"2"')).status]).toEqual([412, 412]);
    expect((await deleteIf('"2-2"')).status).toBe(204);
  });

  it("of 20 changes of the stock at the same time lets one through", async () => {
    const id = await client.createProduct();
    const tried = await Promise.all(
      Array.from({ length: 20 }, () => client.post(`/products/${id}/stock`, { delta: 1 }, { headers: { "If-Match": '"1-1"' } })),
    );
    expect(tried.map(({ status }) => status).sort()).toEqual([200, ...Array<number>(19).fill(412)]);
  });
});

describe("between an editor's GET and the change that follows", () => {
  const ifMatch = (tag: string) => ({ headers: { "If-Match": tag } });

  /** A product that was read, and then ordered. */
  async function sold(): Promise<{ path: string; tag: string; order: string }> {
    const id = await client.createProduct({ quantity: 9 });
    const tag = (await client.get(`/products/${id}`)).headers.get("etag")!;
    const order = String((await client.order(id, 2)).body["id"]);
    expect(await client.decided(order)).toMatchObject({ status: "CONFIRMED" });
    return { path: `/products/${id}`, tag, order };
  }

  it("an order does not make a PATCH 412, and both take effect", async () => {
    const { path, tag } = await sold();
    const { status, headers, body } = await client.patch(path, { price: 2 }, ifMatch(tag));
    expect([status, headers.get("etag"), body["price"], body["quantity"]]).toEqual([200, '"2-3"', 2, 7]);
  });

  it("an order does not make a DELETE 412", async () => {
    const { path, tag } = await sold();
    expect((await client.delete(path, ifMatch(tag))).status).toBe(204);
  });

  it("an order and its cancel make an adjustment of the stock 412, although the quantity is the same again", async () => {
    const { path, tag, order } = await sold();
    expect((await client.post(`${path}/stock`, { delta: 1 }, ifMatch(tag))).status).toBe(412);
    await client.post(`/orders/${order}/cancel`);
    await until("the stock is released", async () => (await client.quantityOf(path.slice("/products/".length))) === 9);
    expect((await client.post(`${path}/stock`, { delta: 1 }, ifMatch(tag))).status).toBe(412);
    expect((await client.get(path)).headers.get("etag")).toBe('"1-3"');
  });

  it("an order makes a read with If-None-Match show the new quantity", async () => {
    const { path, tag } = await sold();
    const { status, body } = await client.get(path, { headers: { "If-None-Match": tag } });
    expect([status, body["quantity"]]).toEqual([200, 7]);
  });

  it("another editor's PATCH makes a PATCH and a DELETE 412, also after an order", async () => {
    const { path, tag } = await sold();
    expect((await client.patch(path, { name: "Theirs" }, ifMatch(tag))).status).toBe(200);
    expect((await client.patch(path, { name: "Mine" }, ifMatch(tag))).status).toBe(412);
    expect((await client.delete(path, ifMatch(tag))).status).toBe(412);
    expect((await client.get(path)).body["name"]).toBe("Theirs");
  });
});

describe("a change", () => {
  const CHANGES = {
    patch: (id: string, who: typeof SELLER) => patch({ id, price: 1 }, who),
    adjust: (id: string, who: typeof SELLER) => adjust(id, 1, who),
    ledger: (id: string, who: typeof SELLER) => call(broker, products.ledger, { id }, who),
    archive: (id: string, who: typeof SELLER) => call(broker, products.archive, { id }, who),
  };
  it.each(Object.entries(CHANGES))("(%s) is only for the seller and admins", async (_what, change) => {
    const [mine, his] = [(await make()).id, (await make()).id];
    await expect(change(mine, as(somebody()))).rejects.toMatchObject({ type: "FORBIDDEN" });
    await expect(change(mine, { meta: {} } as typeof SELLER)).rejects.toMatchObject({ type: "UNAUTHENTICATED" });
    await expect(change(mine, SELLER)).resolves.toBeDefined();
    await expect(change(his, ADMIN)).resolves.toBeDefined();
  });

  it.each(Object.entries(CHANGES))("(%s) by the console in the name of the seller, or of nobody, is allowed", async (_what, change) => {
    for (const meta of [{ ...SELLER.meta, system: true }, { system: true }])
      await expect(change((await make()).id, { meta } as typeof SELLER)).resolves.toBeDefined();
    const stranger = { meta: { ...as(somebody()).meta, system: true } } as typeof SELLER;
    await expect(change((await make()).id, stranger)).rejects.toMatchObject({ type: "FORBIDDEN" });
  });

  it("of an archived product is impossible; it disappears from reads, lists and new orders, and its ledger stays", async () => {
    const seller = somebody();
    const { id } = await make({}, as(seller));
    await call(broker, products.archive, { id }, as(seller));
    const gone = { type: "PRODUCT_NOT_FOUND", code: 404 };
    await expect(read(id)).rejects.toMatchObject(gone);
    for (const change of Object.values(CHANGES)) await expect(change(id, as(seller))).rejects.toMatchObject(gone);
    const order = { items: [{ product_id: id, quantity: 1 }] };
    await expect(call(broker, orders.create, order, SELLER)).rejects.toMatchObject(gone);
    expect((await call(broker, products.list, { seller_id: seller })).items).toEqual([]);
    expect((await database.query("select from stock_movements where product_id = $1", [id])).rowCount).toBe(1);
  });
});

describe("the list", () => {
  const FILTERED: [Params<typeof products.list>, names: string][] = [
    [{}, "Red lamp|Blue lamp|Rug|Empty"],
    [{ q: "LAMP" }, "Red lamp|Blue lamp"],
    [{ q: "wool" }, "Rug"],
    [{ q: "d l" }, "Red lamp"],
    [{ category: "light" }, "Red lamp|Blue lamp"],
    [{ min_price: 10 }, "Blue lamp|Rug"],
    [{ max_price: 10 }, "Red lamp|Blue lamp|Empty"],
    [{ min_price: 9.99, max_price: 10 }, "Red lamp|Blue lamp"],
    [{ in_stock: true }, "Red lamp|Blue lamp|Rug"],
    [{ in_stock: false }, "Empty"],
    [{ q: "lamp", category: "light", min_price: 10, in_stock: true }, "Blue lamp"],
  ];
  let seller: string;
  beforeAll(async () => {
    seller = somebody();
    await make({ name: "Red lamp", price: 9.99, category: "light" }, as(seller));
    await make({ name: "Blue lamp", price: 10, category: "light" }, as(seller));
    await make({ name: "Rug", price: 99.5, description: "of Wool" }, as(seller));
    await make({ name: "Empty", price: 0, quantity: 0 }, as(seller));
  });

  it.each(FILTERED)("by %j has %s", async (filter, names) => {
    const items = await pages({ seller_id: seller, sort: "created_at", ...filter });
    expect(items.map(({ name }) => name).join("|")).toBe(names);
  });

  it.each(products.SORTS)(
    "by %s has every row once and in order, though many share the value and others are inserted meanwhile",
    async (sort) => {
      const seller_id = somebody();
      const insert = (count: number) =>
        database.query(
          `insert into products (name, price_cents, quantity, seller_id, created_at)
         select 'Name ' || n % 3, n % 3, 1, $2, timestamptz '2026-01-01' + n % 3 * interval '1 ms' from generate_series(1, $1) n`,
          [count, seller_id],
        );
      await insert(60);
      expect((await call(broker, products.list, { seller_id, sort })).items).toHaveLength(20); // the default limit
      const { rows } = await database.query<{ id: string }>("select id from products where seller_id = $1", [seller_id]);
      const items = await pages({ seller_id, sort, limit: 7 }, () => insert(3));
      const ids = items.map(({ id }) => id);
      expect(new Set(ids).size).toBe(ids.length);
      expect(rows.filter(({ id }) => !ids.includes(id))).toEqual([]);
      const column = sort.replace("-", "") as "name" | "price" | "created_at";
      const direction = sort.startsWith("-") ? -1 : 1;
      const before = (a: (typeof items)[0], b: (typeof items)[0]) =>
        direction * (a[column] < b[column] ? -1 : a[column] > b[column] ? 1 : compareIds(a.id, b.id));
      expect(ids).toEqual([...items].sort(before).map(({ id }) => id));
    },
  );

  it.each(["😀", '"', "語"])("by name continues after a name of 200 times %j", async (sign) => {
    const seller_id = somebody();
    for (const quantity of [1, 2]) await make({ name: sign.repeat(200), quantity }, as(seller_id));
    expect(await pages({ seller_id, sort: "name", limit: 1 })).toHaveLength(2);
  });

  it("over HTTP links each page to the next, with filters, and the last one to none", async () => {
    const seen: number[] = [];
    for (let path = `/products?seller_id=${seller}&sort=-price&limit=2&in_stock=true`; path !== "";) {
      const { headers, body } = await client.get<Result<typeof products.list>>(path);
      seen.push(...body.items.map(({ price }) => price));
      path = /^<(\/products\?.+)>; rel="next"$/.exec(headers.get("link") ?? "")?.[1] ?? "";
      expect(new URLSearchParams(path.split("?")[1]).get("cursor")).toBe(body.next_cursor);
    }
    expect(seen).toEqual([99.5, 10, 9.99]);
  });

  it("is searched for at most 64 characters", async () => {
    expect((await client.get(`/products?q=${"x".repeat(64)}`)).status).toBe(200);
    const { status, body } = await client.get(`/products?q=${"x".repeat(65)}`);
    expect([status, body["code"]]).toEqual([400, "BAD_REQUEST"]);
  });

  const LITERAL = ["%25", "_", "%5c", "%5c%25", "a%25' or 1=1 --", "'; drop table products; --", "(a+)%2b$", "(a|a)*b"];
  it.each(LITERAL)("for %s searches literally and is empty", async (text) => {
    for (const name of ["q", "category"])
      expect(await client.get(`/products?${name}=${text}`)).toMatchObject({ status: 200, body: { items: [], next_cursor: null } });
  });

  it.each(["0%25_", "_w", "%5c", "l\\"])("for %s has the name with exactly these characters", async (text) => {
    const id = await client.createProduct({ name: "100%_wool\\" });
    expect((await client.get(`/products?q=${text}`)).body["items"]).toMatchObject([{ id }]);
    await client.delete(`/products/${id}`);
  });
});

describe("stock", () => {
  it("follows its adjustments, and the ledger contains each, newest first, page by page", async () => {
    const { id } = await make({ quantity: 5 });
    await call(broker, products.adjust, { id, delta: 3, reason: "delivery" }, SELLER);
    expect(await adjust(id, -8)).toMatchObject({ quantity: 0, version: 3 });
    const first = await call(broker, products.ledger, { id, limit: 2 }, SELLER);
    expect(first.items).toMatchObject([
      { delta: -8, balance: 0 },
      { delta: 3, balance: 8, reason: "delivery" },
    ]);
    await adjust(id, 1); // between reading two pages
    const second = await call(broker, products.ledger, { id, limit: 2, cursor: first.next_cursor! }, SELLER);
    expect(second).toMatchObject({ items: [{ delta: 5, balance: 5 }], next_cursor: null });
  });

  it("over HTTP: the product as the response, and a ledger that links its pages", async () => {
    const path = `/products/${await client.createProduct({ quantity: 1 })}/stock`;
    const adjusted = await client.post(path, { delta: 2 });
    expect([adjusted.status, adjusted.headers.get("etag"), adjusted.body["quantity"]]).toEqual([200, '"1-2"', 3]);
    const { body, headers } = await client.get(`${path}?limit=1`);
    expect(body["items"]).toMatchObject([{ delta: 2, balance: 3, order_id: null }]);
    expect(headers.get("link")).toBe(`<${path}?limit=1&cursor=${body["next_cursor"]}>; rel="next"`);
  });

  it("never falls below zero and is the sum of its ledger, however many adjust it at once", async () => {
    const { id } = await make({ quantity: 20 });
    const deltas = Array.from({ length: 120 }, (_, i) => (i % 4 === 0 ? 2 : -3));
    const tried = await Promise.allSettled(deltas.map((delta) => adjust(id, delta)));
    const done = deltas.filter((_, i) => tried[i]!.status === "fulfilled");
    const rows = (await ledger(id)).reverse();
    expect(rows.map(({ delta }) => delta).sort()).toEqual([20, ...done].sort());
    rows.forEach((row, i) => expect(row.balance).toBe((rows[i - 1]?.balance ?? 0) + row.delta));
    expect(Math.min(...rows.map(({ balance }) => balance))).toBeGreaterThanOrEqual(0);
    expect((await read(id)).quantity).toBe(rows.at(-1)!.balance);
  });

  it("that is too low → INSUFFICIENT_STOCK, even while other requests add some", async () => {
    const { id } = await make({ quantity: 0 });
    const deltas = Array.from({ length: 120 }, (_, i) => (i % 2 === 0 ? 1 : -2));
    const tried = await Promise.allSettled(deltas.map((delta) => adjust(id, delta)));
    const types = tried.flatMap((one) => (one.status === "rejected" ? (one.reason as { type: string }).type : []));
    expect(new Set(types)).toEqual(new Set(["INSUFFICIENT_STOCK"]));
  });

  it("that is adjusted while its product is being archived → PRODUCT_NOT_FOUND, and its ledger stays as it was", async () => {
    const { id } = await make({ quantity: 5 });
    const other = new Postgres(shop.databases.products.url);
    await other.connect();
    try {
      await other.query("begin");
      await other.query("update products set archived_at = now() where id = $1", [id]);
      const adjusted = adjust(id, -1).catch((error: unknown) => error);
      const waiting = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
      await until("the adjustment waits", async () => (await database.query(waiting)).rowCount === 1);
      await other.query("commit");
      expect(await adjusted).toMatchObject({ type: "PRODUCT_NOT_FOUND" });
    } finally {
      await other.end();
    }
    const { rows } = await database.query("select delta from stock_movements where product_id = $1", [id]);
    expect(rows).toEqual([{ delta: 5 }]);
  });

  it("and the units held by orders are at most a billion together, so that a release always fits", async () => {
    const { id } = await make({ quantity: 1_000_000_000 });
    const buyer = as(somebody());
    const { order } = await call(broker, orders.create, { items: [{ product_id: id, quantity: 10_000 }] }, buyer);
    await until("the stock is reserved", async () => (await read(id)).quantity === 999_990_000);
    await expect(adjust(id, 1)).rejects.toMatchObject({ type: "VALIDATION_ERROR" });
    await adjust(id, -1);
    await adjust(id, 1);
    await call(broker, orders.cancel, { id: order.id }, buyer);
    await until("the stock is released", async () => (await read(id)).quantity === 1_000_000_000);
    expect((await ledger(id)).slice(0, 1)).toMatchObject([{ delta: 10_000, balance: 1_000_000_000, order_id: order.id }]);
  });
});

describe("HTTP", () => {
  it.each(['"1-1"', 'W/"1-1"', '"7", W/"1-1"', "*"])("If-None-Match %s of an unchanged product → 304 without a body", async (tag) => {
    const path = `/products/${await client.createProduct()}`;
    const ask = (headers: Record<string, string>) => client.get(path, { headers });
    const { status, headers, body } = await ask({ "If-None-Match": tag });
    expect([status, headers.get("etag"), body]).toEqual([304, '"1-1"', {}]);
    for (const other of ['"7-1"', '"1-7"', '"1"']) expect((await ask({ "If-None-Match": other })).status).toBe(200);
    await client.patch(path, { price: 1 });
    expect((await ask({ "If-None-Match": tag })).status).toBe(tag === "*" ? 304 : 200);
  });

  it.each(["/products", "/health", "/nowhere", "/me"])("HEAD %s has the headers of GET and no body", async (path) => {
    const ask = async (method: string) => {
      const response = await fetch(shop.url + path, { method, headers: { "X-Request-Id": "same" } });
      const hopByHop = ["date", "connection", "keep-alive"];
      return { head: [response.status, [...response.headers].filter(([name]) => !hopByHop.includes(name))], text: await response.text() };
    };
    const [get, head] = [await ask("GET"), await ask("HEAD")];
    expect(head).toEqual({ head: get.head, text: "" });
    expect(get.text).not.toBe("");
  });

  it.each([
    ["/products", "GET, HEAD, OPTIONS, POST"],
    [`/products/${testId(1)}/`, "DELETE, GET, HEAD, OPTIONS, PATCH"],
    ["/token", "OPTIONS, POST"],
  ])("OPTIONS %s → 204, and Allow: %s", async (path, methods) => {
    const { status, headers } = await client.request("OPTIONS", path);
    expect([status, headers.get("allow")?.split(", ").sort().join(", ")]).toEqual([204, methods]);
  });
});
