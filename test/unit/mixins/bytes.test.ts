import fc from "fast-check";
import { PAGE_BYTES } from "../../../contracts/contract";
import { countWithin, maxJsonBytes } from "../../../mixins/bytes";
import { page } from "../../../mixins/keyset";

const bytes = (value: unknown): number => Buffer.byteLength(JSON.stringify(value));
const anything = fc.jsonValue({ stringUnit: "binary" });

it("no value takes more bytes than estimated", () => {
  fc.assert(fc.property(anything, (value) => maxJsonBytes(value) >= bytes(value)));
  for (const value of [-1.2345678901234567e-300, Number.MIN_SAFE_INTEGER, "\u0001\ud800", { "\u0001": ["\u0001"] }, [], {}, null])
    expect(maxJsonBytes(value)).toBeGreaterThanOrEqual(bytes(value));
});

it("the same number of values fits as by counting them individually, and at least one", () => {
  fc.assert(
    fc.property(fc.array(anything), fc.nat(2_000), (values, limit) => {
      const fitting = values.filter((_, i) => values.slice(0, i + 1).reduce((sum: number, v) => sum + bytes(v) + 1, 0) <= limit).length;
      expect(countWithin(values, limit)).toBe(values.length === 0 ? 0 : Math.max(fitting, 1));
    }),
  );
});

describe("a page", () => {
  const pageOf = (rows: readonly string[], limit: number) =>
    page(rows, limit, (row) => ({ row }), (last) => String(rows.indexOf(last))); // prettier-ignore
  const row = (i: number, size: number): string => String(i).padEnd(size, "語");

  it("of small items ends at its limit, and the next page continues there", () => {
    const rows = Array.from({ length: 21 }, (_, i) => row(i, 10));
    expect(pageOf(rows, 20)).toMatchObject({ items: { length: 20 }, next_cursor: "19" });
    expect(pageOf(rows.slice(0, 20), 20)).toMatchObject({ items: { length: 20 }, next_cursor: null });
    expect(pageOf([], 20)).toEqual({ items: [], next_cursor: null });
  });

  it("of large items ends at 256 KiB and no further items are counted; all pages together have every item once", () => {
    const rows = Array.from({ length: 60 }, (_, i) => row(i, 5_000));
    const seen: string[] = [];
    for (let from = 0; from < rows.length;) {
      const got = pageOf(rows.slice(from, from + 51), 50);
      expect(bytes(got)).toBeLessThanOrEqual(PAGE_BYTES);
      if (got.next_cursor !== null) expect(bytes(got)).toBeGreaterThan(PAGE_BYTES - 20_000);
      seen.push(...got.items.map((item) => item.row));
      from += got.items.length;
    }
    expect(seen).toEqual(rows);
  });

  it("has at least one item, however large that is", () => {
    const rows = [row(1, PAGE_BYTES), row(2, 1)];
    expect(pageOf(rows, 20)).toEqual({ items: [{ row: rows[0] }], next_cursor: "0" });
  });
});
