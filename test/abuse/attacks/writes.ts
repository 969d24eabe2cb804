import type { Attack, AttackOutcome } from "../attack";
import type { Attacker } from "../attacker";
import { insertProducts } from "../data";

const DESCRIPTION = 5_000;
const PATCHED = 5;
const PATCHES = 12;
const LANES = 64;
const KIB = 1_024;

const ideographs = (attacker: Attacker): string =>
  String.fromCharCode(...Array.from({ length: DESCRIPTION }, () => 0x4e00 + Math.floor(attacker.random() * 20_000)));

/** The databases may grow only with accepted writes. @param maxBytes maximum growth per write, including its index entries */
const growth =
  (maxBytes: number) =>
  ({ counts, victimsWrites, before, after }: AttackOutcome): string[] => {
    const writes = Object.entries(counts).reduce((sum, [status, count]) => sum + (/^2\d\d$/.test(status) ? count : 0), victimsWrites);
    const each = (after.databaseBytes - before.databaseBytes) / Math.max(1, writes);
    return each > maxBytes ? [`the databases grew by ${(each / KIB).toFixed(0)} KiB per accepted write`] : [];
  };

export const writes: readonly Attack[] = [
  {
    row: "41a",
    name: `PATCH of ${PATCHED} products with 5,000 random ideographs, ${PATCHES} at a time`,
    least: { "200": 10 },
    prepare: async (context) => {
      const seller = context.accounts.attackers[5]?.id ?? "";
      return { products: await insertProducts(context, { seller, count: PATCHED, name: "'patched ' || n", description: "null" }) };
    },
    run: (attacker) =>
      attacker.flood(PATCHES, (lane) => {
        const id = attacker.ids("products")[lane % PATCHED] ?? "";
        const json = { description: ideographs(attacker) };
        return attacker.send("PATCH", `/products/${id}`, { token: attacker.target.accounts[5]?.token, json });
      }),
    expect: growth(64 * KIB),
  },
  {
    row: "41b",
    name: `${LANES} at a time: stock adjustments, orders with long keys, and cancels`,
    least: { "200": 20, "201": 10 },
    prepare: async (context) => {
      const seller = context.accounts.attackers[6]?.id ?? "";
      const product = { seller, count: LANES, name: "'adjusted ' || n", description: "null", quantity: 1_000_000 };
      return { products: await insertProducts(context, product) };
    },
    run: (attacker) =>
      attacker.flood(LANES, async (lane) => {
        const id = attacker.ids("products")[lane] ?? "";
        const token = attacker.target.accounts[6]?.token;
        await attacker.send("POST", `/products/${id}/stock`, { token, json: { delta: 1, reason: "x".repeat(200) } });
        const key = `${lane}-${attacker.random()}-`.padEnd(255, "k");
        const order = await attacker.create("/orders", {
          token,
          headers: { "idempotency-key": key },
          json: { items: [{ product_id: id, quantity: 1 }] },
        });
        if (order !== undefined) await attacker.send("POST", `/orders/${order}/cancel`, { token });
      }),
    expect: growth(8 * KIB),
  },
];
