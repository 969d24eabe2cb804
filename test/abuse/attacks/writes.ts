import type { Attack, Seen } from "../attack";
import { insertProducts } from "../data";
import type { Tools } from "../tools";

const DESCRIPTION = 5_000;
const PATCHED = 5;
const PATCHES = 12;
const LANES = 64;
const KIB = 1_024;

const ideographs = (tools: Tools): string =>
  String.fromCharCode(...Array.from({ length: DESCRIPTION }, () => 0x4e00 + Math.floor(tools.random() * 20_000)));

/** The databases may grow only with accepted writes. @param mostBytes maximum growth per write, including its index entries */
const growth =
  (mostBytes: number) =>
  ({ counts, victimsWrites, before, after }: Seen): string[] => {
    const writes = Object.entries(counts).reduce((sum, [status, count]) => sum + (/^2\d\d$/.test(status) ? count : 0), victimsWrites);
    const each = (after.databaseBytes - before.databaseBytes) / Math.max(1, writes);
    return each > mostBytes ? [`the databases grew by ${(each / KIB).toFixed(0)} KiB per accepted write`] : [];
  };

export const writes: readonly Attack[] = [
  {
    row: "41a",
    name: `PATCH of ${PATCHED} products with 5,000 random ideographs, ${PATCHES} at a time`,
    least: { "200": 10 },
    prepare: async (stage) => {
      const seller = stage.people.attackers[5]?.id ?? "";
      return { products: await insertProducts(stage, { seller, count: PATCHED, name: "'patched ' || n", description: "null" }) };
    },
    run: (tools) =>
      tools.flood(PATCHES, (lane) => {
        const id = tools.ids("products")[lane % PATCHED] ?? "";
        return tools.send("PATCH", `/products/${id}`, { token: tools.target.accounts[5]?.token, json: { description: ideographs(tools) } });
      }),
    expect: growth(64 * KIB),
  },
  {
    row: "41b",
    name: `${LANES} at a time: stock adjustments, orders with long keys, and cancels`,
    least: { "200": 20, "201": 10 },
    prepare: async (stage) => {
      const seller = stage.people.attackers[6]?.id ?? "";
      const product = { seller, count: LANES, name: "'adjusted ' || n", description: "null", quantity: 1_000_000 };
      return { products: await insertProducts(stage, product) };
    },
    run: (tools) =>
      tools.flood(LANES, async (lane) => {
        const id = tools.ids("products")[lane] ?? "";
        const token = tools.target.accounts[6]?.token;
        await tools.send("POST", `/products/${id}/stock`, { token, json: { delta: 1, reason: "x".repeat(200) } });
        const key = `${lane}-${tools.random()}-`.padEnd(255, "k");
        const order = await tools.create("/orders", {
          token,
          headers: { "idempotency-key": key },
          json: { items: [{ product_id: id, quantity: 1 }] },
        });
        if (order !== undefined) await tools.send("POST", `/orders/${order}/cancel`, { token });
      }),
    expect: growth(8 * KIB),
  },
];
