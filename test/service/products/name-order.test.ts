import { readFile } from "node:fs/promises";
import path from "node:path";
import type { ServiceBroker } from "moleculer";
import { Client as Postgres } from "pg";
import { call } from "../../../broker/contract";
import type { Params } from "../../../contracts/contract";
import * as products from "../../../contracts/products";
import { encodeCursor } from "../../../mixins/keyset";
import { testId } from "../../../testkit/ids";
import { ROOT } from "../../../testkit/repository";
import { startShop, type Shop } from "../../../testkit/shop";

let shop: Shop, broker: ServiceBroker, database: Postgres;
/** The id of a seller that no other test uses, so that the seller's products are a list of their own. */
let lastSeller = 0;
const somebody = (): string => testId(++lastSeller);

beforeAll(async () => {
  shop = await startShop({ nodes: [["products"]] });
  broker = shop.node("products");
  database = new Postgres(shop.databases.products.url);
  await database.connect();
});
afterAll(async () => {
  await database.end();
  await shop.stop();
});

/** Inserts products that are sold out, with names that the gateway would trim and normalize. */
const insert = (names: readonly string[], seller: string, category = seller) =>
  database.query(
    "insert into products (name, category, price_cents, quantity, seller_id) select n, $2, 1, 0, $3 from unnest($1::text[]) as n",
    [names, category, seller],
  );

/** Reads all pages of a list. */
async function names(list: Params<typeof products.list>): Promise<string[]> {
  const found: string[] = [];
  for (let cursor: string | undefined; ;) {
    const page = await call(broker, products.list, { ...list, ...(cursor !== undefined && { cursor }) });
    found.push(...page.items.map(({ name }) => name));
    if (page.next_cursor === null) return found;
    cursor = page.next_cursor;
  }
}

const migration = (name: string) => readFile(path.join(ROOT, "services/products/migrations", name), "utf8");

/** Names whose keys are equal are in the order of their bytes. */
const ORDERED = [
  ...["😀", "10 mugs", "2 mugs", "aeon", "ÆON", "Apfel", "Äpfel", "apple", "Cafe\u0301", "Caf\u00e9"],
  ...["lamp", "Lamp 2", "“Lamp” – 3", "Lampe", "  leading", "lodz", "Łódź", "strasse", "straße"],
  ...["T-shirt", "T shirts", "Tshirt", "Zebra", "zebra", "Ελλάδα", "ελλάδα"],
  ...["Ёж", "Елка", "Игла", "Йод", "Кот", "Яблоко", "яблоко", "台灯"],
];

describe("products by name", () => {
  it.each([1, 3, 100])("are in the order that people expect, in both directions, in pages of %i", async (limit) => {
    const seller_id = somebody();
    await insert(ORDERED.toReversed(), seller_id);
    expect(await names({ seller_id, sort: "name", limit })).toEqual(ORDERED);
    expect(await names({ seller_id, sort: "-name", limit })).toEqual(ORDERED.toReversed());
  });

  it("are in this order with every filter", async () => {
    const seller_id = somebody();
    const ordered = ["apple", "Ápple app", "APPLY"];
    await insert(ordered.toReversed(), seller_id);
    const seller = { seller_id };
    for (const filter of [{ category: seller_id }, { ...seller, q: "ap" }, { ...seller, q: "app" }, { ...seller, in_stock: false }])
      expect([filter, await names({ ...filter, sort: "name", limit: 1 })]).toEqual([filter, ordered]);
  });

  it("that differ only in case and accents, or not at all, occur once each", async () => {
    const seller_id = somebody();
    await insert(["a", "A", "á", "a", "A", "á", "a"], seller_id);
    for (const limit of [1, 2, 3]) expect(await names({ seller_id, sort: "name", limit })).toEqual(["A", "A", "a", "a", "a", "á", "á"]);
  });

  it("move when they are renamed", async () => {
    const seller_id = somebody();
    const as = { meta: { user: { id: seller_id, role: "user" } } };
    const create = (name: string) => call(broker, products.create, { name, price: 1, quantity: 1 }, as);
    const { id } = await create("apple");
    await create("Birne");
    expect(await names({ seller_id, sort: "name" })).toEqual(["apple", "Birne"]);
    await call(broker, products.update, { id, name: "Öl" }, as);
    expect(await names({ seller_id, sort: "name" })).toEqual(["Birne", "Öl"]);
  });

  it("may have the longest names, however many bytes or letters they become", async () => {
    const category = "𠀀".repeat(100);
    const longest = ["ß", "ﷺ", "각", "𠀀"].map((character) => character.repeat(200));
    await insert(longest.toReversed(), somebody(), category);
    expect(await names({ category, sort: "name", limit: 1 })).toEqual(longest);
  });

  it.each(["name", "-name"] as const)("by %s do not continue from a cursor of version 0.2.0, whose order was another", async (sort) => {
    const cursor = encodeCursor(`products:${sort}`, ["Lamp", testId(1)]);
    await expect(call(broker, products.list, { sort, cursor })).rejects.toMatchObject({ type: "BAD_REQUEST", code: 400 });
  });
});

describe("the sort key of a name", () => {
  const KEYS = [
    ["“Aladdin” – Lamp, 2-pack!", "aladdin lamp 2 pack"],
    ["*** SALE ***", "sale"],
    ["🔥 #1 \t\n Dad", "1 dad"],
    ["Men's", "mens"],
    ["Men’s", "mens"],
    ["ACME™ Lego®", "acme lego"],
    ["ﬁne ½ x² Ａ", "fine 1 2 x2 a"],
    ["İstanbul ışık", "istanbul isik"],
    ["ŒUVRE Þór ẞ Đặng Ø", "oeuvre thor ss dang o"],
    ["ΣΊΣΥΦΟΣ Σίσυφος", "σισυφοσ σισυφοσ"],
    ["Ёлка Йод Її Ґанок Ўзбек", "елка йод ии ганок узбек"],
    ["がぎ", "かき"],
    ["👩‍👩‍👧 ❤️", ""],
  ] as const;
  it.each(KEYS)("%j is %j", async (name, key) => {
    expect((await database.query("select name_sort_key($1) as key", [name])).rows).toEqual([{ key }]);
  });

  it("is the same in a database of another locale", async () => {
    const texts = [...ORDERED, ...KEYS.flat(), "Հայաստան"]; // the locale of the shop's database would fold this capital letter
    const keys = "select name_sort_key(n) as key from unnest($1::text[]) with ordinality as t (n, i) order by i";
    const other = `${database.database ?? ""}_c`;
    await database.query(`create database "${other}" template template0 encoding 'UTF8' locale_provider libc locale 'C'`);
    const client = new Postgres(Object.assign(new URL(shop.databases.products.url), { pathname: `/${other}` }).href);
    try {
      await client.connect();
      await client.query(await migration("002_name_sort_key.sql"));
      expect((await client.query(keys, [texts])).rows).toEqual((await database.query(keys, [texts])).rows);
    } finally {
      await client.end();
      await database.query(`drop database "${other}"`);
    }
  });

  it("and its indexes may exist before the migrations, as operators of large catalogues create them", async () => {
    for (const name of ["002_name_sort_key.sql", "003_products_by_name_key.sql"]) await database.query(await migration(name));
    const { rows } = await database.query("select indexname from pg_indexes where indexdef like '%name_sort_key(name), name, id)%'");
    expect(rows).toHaveLength(3);
  });
});
