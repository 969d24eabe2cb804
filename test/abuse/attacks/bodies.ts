import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { testId } from "../../../testkit/ids";
import type { Attack } from "../attack";
import type { Message } from "../attacker";

/** Decoded size in bytes, just below the limit of 100 KiB. */
const UNPACKED = 102_000;
const AT_A_TIME = 8;
const MANY = 128;

const gzipped = (text: string): Message => ({ raw: gzipSync(text), headers: { "content-encoding": "gzip" } });
const filled = (begin: string, item: string, end: string): string =>
  begin +
  Array<string>(Math.floor((UNPACKED - begin.length - end.length) / (item.length + 1)))
    .fill(item)
    .join() +
  end;
const deep = (depth: number): string => "[".repeat(depth) + "]".repeat(depth);

const EMPTY_ITEMS = gzipped(`{"items":[${Array<string>(34_100).fill("{}").join()}]}`);

/** Decoding fills the window, of the largest size, before it returns the first byte. */
const WIDE_WINDOW: Message = {
  raw: brotliCompressSync(Buffer.alloc(1 << 24), { params: { [constants.BROTLI_PARAM_LGWIN]: 24 } }),
  headers: { "content-encoding": "br" },
};

/** Bodies that expand, or contain as many errors as possible. */
const SHAPES: readonly (readonly [method: "POST" | "PATCH" | "PUT", path: string, body: Message])[] = [
  ["POST", "/orders", { raw: filled('{"items":[', '{"product_id":"a","quantity":-1,"x":0}', "]}") }],
  ["POST", "/orders", gzipped(filled('{"items":[', '{"product_id":0,"quantity":0}', "]}"))],
  ["POST", "/products", { raw: `{"${"n".repeat(UNPACKED - 20)}":1}` }],
  ["POST", "/products", { raw: `{${Array.from({ length: 9_000 }, (_, n) => `"f${n}":${n}`).join()}}` }],
  ["POST", "/products", { raw: `{"name":${deep(50_000)}}` }],
  ["POST", "/products", { raw: JSON.stringify({ name: "漢".repeat(30_000), price: 1, quantity: 1 }) }],
  ["POST", "/products", { raw: JSON.stringify({ name: '\\"'.repeat(20_000), price: 1e308, quantity: 1.5 }) }],
  ["PATCH", `/products/${testId(1)}`, gzipped(JSON.stringify({ description: "a".repeat(UNPACKED) }))],
  ["POST", "/register", { raw: JSON.stringify({ email: `${"a".repeat(50_000)}@${"b".repeat(50_000)}`, password: "x" }) }],
  ["PUT", "/me/password", { raw: JSON.stringify({ current_password: "é".repeat(25_000), new_password: "e\u0301".repeat(15_000) }) }],
  ["POST", "/token", { raw: JSON.stringify({ email: "ﷺ".repeat(15_000), password: "x".repeat(50_000) }) }],
];

const ENCODINGS = [
  "gzip",
  "br",
  "deflate",
  "zstd",
  "compress",
  "identity, gzip",
  "gzip, gzip",
  "gzip,br,deflate",
  "x-gzip",
  "nonsense",
  ",",
];
/** All outcomes except success and internal errors. */
const REFUSALS = /^(400|401|403|404|413|415|422|429|503|no response|connections closed)$/;

export const bodies: readonly Attack[] = [
  {
    row: "42a",
    name: `gzip bodies of 154 bytes that are 34,100 empty items, ${AT_A_TIME} at a time`,
    least: { "422": 10 },
    quick: ["one"],
    run: (attacker) => attacker.flood(AT_A_TIME, () => attacker.send("POST", "/orders", { token: attacker.token, ...EMPTY_ITEMS })),
  },
  {
    row: "42c",
    name: `bodies as in 42a, ${MANY} at a time`,
    least: { "422": 10 },
    run: (attacker) => attacker.flood(MANY, () => attacker.send("POST", "/orders", { token: attacker.token, ...EMPTY_ITEMS })),
  },
  {
    row: "42b",
    name: `bodies of 100 KiB full of mistakes, long names and deep trees, ${AT_A_TIME} at a time`,
    least: { "413": 2, "422": 20 },
    run: (attacker) =>
      attacker.flood(AT_A_TIME, () => {
        const [method, path, body] = attacker.pick(SHAPES);
        return attacker.send(method, path, { token: attacker.token, ...body });
      }),
  },
  {
    row: "42d",
    name: `Brotli bodies of fifty bytes whose window has 16 MB, ${MANY} at a time`,
    least: { "413": 10 },
    run: (attacker) => attacker.flood(MANY, () => attacker.send("POST", "/logout", WIDE_WINDOW)),
  },
  {
    row: "47",
    name: "unknown, broken and stacked Content-Encoding",
    least: { "400": 20, "415": 20 },
    run: async (attacker) => {
      await attacker.flood(4, () => {
        const encoding = attacker.pick(ENCODINGS);
        const raw =
          attacker.random() < 0.5
            ? '{"items":[]}'
            : gzipSync(JSON.stringify({ items: [{ product_id: testId(1), quantity: 1 }] })).subarray(0, 30);
        return attacker.send("POST", "/orders", { token: attacker.token, raw, headers: { "content-encoding": encoding } });
      });
    },
    expect: ({ counts }) =>
      Object.entries(counts).flatMap(([what, count]) =>
        REFUSALS.test(what) && what !== "503" ? [] : [`${count} × ${what} for a Content-Encoding that can't be read`],
      ),
  },
];
