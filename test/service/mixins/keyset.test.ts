import { Client as Postgres } from "pg";
import { compareIds, MAX_ID, NIL_ID } from "../../../contracts/contract";
import type { Order } from "../../../contracts/orders";
import { SORTS } from "../../../contracts/products";
import type { Client } from "../../../testkit/client";
import { misspelled, testId } from "../../../testkit/ids";
import { ADMIN } from "../../../testkit/admin";
import { startShop, type Shop } from "../../../testkit/shop";

let shop: Shop, book: Postgres;
let admin: Client, buyer: Client;

beforeAll(async () => {
  shop = await startShop();
  [admin, buyer] = [shop.client(), shop.client()];
  await Promise.all([admin.login(ADMIN.email, ADMIN.password), buyer.signUp()]);
  book = new Postgres(shop.databases.orders.url);
  await book.connect();
});
afterAll(async () => {
  await book.end();
  await shop.stop();
});

describe("orders of the same moment", () => {
  const MOMENT = "2026-01-02T03:04:05.678Z";
  let userId: string;
  /** Inserts orders, every second one REJECTED. @param offset milliseconds from the moment */
  const insert = (count: number, offset = 0) =>
    book.query(
      `with made as (
         insert into orders (user_id, idempotency_key, request_hash, lines_digest, status, total_cents, created_at)
         select $1, gen_random_uuid(), '-', '-', case n % 2 when 0 then 'REJECTED' else 'CANCELLED' end, 0, $2::timestamptz + $3::int * interval '1 ms'
         from generate_series(1, $4::int) n returning id
       ), lines as (insert into order_lines select id, gen_random_uuid(), 'Lamp', 0, 1 from made)
       insert into order_history (order_id, status) select id, 'PENDING' from made`,
      [userId, MOMENT, offset, count],
    );
  beforeAll(async () => {
    userId = String((await buyer.get("/me")).body["id"]);
    await insert(10, -1);
    await insert(30);
    await insert(10, 1);
  });

  const LISTS: [string, () => Client, (own: string) => string][] = [
    ["one's own orders", () => buyer, () => "/orders?"],
    ["one's own orders of a status", () => buyer, () => "/orders?status=REJECTED&"],
    ["a user's orders", () => admin, (own) => `/orders?user_id=${own}&`],
    ["all orders", () => admin, () => "/orders?all=true&"],
    ["all orders of a status", () => admin, () => "/orders?all=true&status=CANCELLED&"],
  ];
  it.each(LISTS)(
    "occur exactly once in the list of %s, newest first and then by id, though others are inserted meanwhile",
    async (_what, who, pathOf) => {
      const path = pathOf(userId);
      const before = (await book.query<{ id: string; status: string }>("select id, status from orders")).rows;
      const items: Order[] = [];
      for (let next = `${path}limit=7`; next !== "";) {
        const { status, body, headers } = await who().get<{ items: Order[] }>(next);
        expect(status).toBe(200);
        items.push(...body.items);
        next = /^<(.+)>; rel="next"$/.exec(headers.get("link") ?? "")?.[1] ?? "";
        await insert(2);
      }
      const ids = items.map(({ id }) => id);
      expect(new Set(ids).size).toBe(ids.length);
      const status = new URLSearchParams(path.split("?")[1]).get("status");
      expect(before.filter((order) => order.status === (status ?? order.status) && !ids.includes(order.id))).toEqual([]);
      const newestFirst = (a: Order, b: Order) => compareIds(b.created_at, a.created_at) || compareIds(b.id, a.id);
      expect(items).toEqual([...items].sort(newestFirst));
    },
  );
});

describe("a cursor", () => {
  type Kind = "text" | "number" | "time" | "id";
  const NEVER = [null, true, {}, [], ["x"], [testId(1)]];
  const WRONG: Record<Kind, unknown[]> = {
    text: [...NEVER, 7, "\0", "a\0b", "x".repeat(201), "😀".repeat(201)],
    number: [...NEVER, "7", "", 1.5, 2 ** 53, -(2 ** 53), 1e300],
    time: [...NEVER, "7", "", "2026-01-01", new Date(0), -1, 1.5, 8.64e15 + 1, 2 ** 53, 1e300],
    id: [...NEVER, 7, ...misspelled(testId(1))],
  };
  const ODD: Record<Kind, unknown[]> = {
    text: ["", "'", "%_\\", "\ud800", "😀".repeat(200)],
    number: [0, -1, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER],
    time: [0, 1, 8.64e15],
    id: [NIL_ID, MAX_ID, MAX_ID.toUpperCase()],
  };

  /** Each list, and the kinds of values in its cursors. */
  const LISTS: [path: string, kinds: Kind[]][] = [
    ["/orders?", ["time", "id"]],
    ["/orders?status=CONFIRMED", ["time", "id"]],
    ["/orders?all=true", ["time", "id"]],
    ...SORTS.flatMap((sort): [string, Kind[]][] => {
      const kinds: Kind[] = [sort.endsWith("name") ? "text" : sort.endsWith("price") ? "number" : "time", "id"];
      return ["", "&category=light", "&q=lamp"].map((filter) => [`/products?sort=${sort}${filter}`, kinds]);
    }),
    ["/products/{id}/stock?", ["number"]],
    ["/admin/outbox?state=settled", ["number"]],
    ["/admin/audit-log?", ["number"]],
    ["/admin/audit-log?action=login.succeeded", ["number"]],
  ];

  let product: string;
  beforeAll(async () => {
    product = await admin.createProduct({ category: "light" });
    await admin.createProduct({ category: "light" });
    await admin.post(`/products/${product}/stock`, { delta: 1 });
    for (let i = 0; i < 2; i++) await admin.decided(String((await admin.order(product, 1)).body["id"]));
    await admin.login(ADMIN.email, ADMIN.password);
  });

  const read = (path: string, cursor?: string) =>
    admin.get(`${path.replace("{id}", product)}&limit=1${cursor === undefined ? "" : `&cursor=${encodeURIComponent(cursor)}`}`);
  /** The contents of a list's own cursor: its name and the values. */
  async function own(path: string): Promise<{ cursor: string; name: string; values: unknown[] }> {
    const cursor = String((await read(path)).body["next_cursor"]);
    const [name, ...values] = JSON.parse(Buffer.from(cursor, "base64url").toString()) as [string, ...unknown[]];
    return { cursor, name, values };
  }
  const encode = (...parts: unknown[]): string => Buffer.from(JSON.stringify(parts)).toString("base64url");
  const refused = async (path: string, cursor: string) => {
    const { status, body } = await read(path, cursor);
    expect([cursor, status, body["detail"]]).toEqual([cursor, 400, "the cursor is invalid, or belongs to another list or sort order"]);
  };

  it.each(LISTS)("of %s is refused if a value has the wrong kind, and accepted if all are right", async (path, kinds) => {
    const { name, values } = await own(path);
    expect(values).toHaveLength(kinds.length);
    for (const [i, kind] of kinds.entries()) {
      for (const wrong of WRONG[kind]) await refused(path, encode(name, ...values.with(i, wrong)));
      for (const odd of ODD[kind]) expect([odd, (await read(path, encode(name, ...values.with(i, odd)))).status]).toEqual([odd, 200]);
    }
  });

  it.each(LISTS)("of %s is refused if values are missing, added or swapped, or if it is truncated or no cursor", async (path) => {
    const { cursor, name, values } = await own(path);
    const whole = JSON.stringify([name, ...values]);
    const infinite = values.map((_, i) => JSON.stringify([name, ...values.with(i, "∞")]).replace('"∞"', "1e400"));
    const texts = [whole.slice(0, -1), "null", "7", "{}", "[]", `{"0":${whole}}`, `[${whole}]`, ...infinite];
    const others = [[name], values, [name, ...values, 1], [name, values]];
    if (values.length > 1) others.push([name, ...values.toReversed()]);
    const cut = [cursor.slice(1), cursor.slice(0, -3), "x", "_", "%00", "="];
    for (const bad of [...cut, ...texts.map((text) => Buffer.from(text).toString("base64url")), ...others.map((parts) => encode(...parts))])
      await refused(path, bad);
  });

  it.each(LISTS)("of another list or sort is refused by the list of %s", async (path) => {
    const mine = await own(path);
    for (const [other] of LISTS) {
      const { cursor, name } = await own(other);
      if (name !== mine.name) await refused(path, cursor);
    }
  });

  it.each(LISTS)("of %s is refused if it is empty or has more than 4,096 characters", async (path) => {
    const { name, values } = await own(path);
    for (const bad of [encode(name, ...values, "x".repeat(4_000)), ""]) {
      const { status, body } = await read(path, bad);
      expect([status, body["code"]]).toEqual([400, "BAD_REQUEST"]);
    }
  });
});
