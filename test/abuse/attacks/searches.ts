import type { Attack } from "../attack";
import { insertProducts } from "../data";

const NEEDLES = [32, 64].map((length) => `${"a".repeat(length - 1)}b`);
const PAIRS = ["aa", "ki", "xq", "%_", "\\\\", "_", "a", "b%", "台灯", "A1"];
const SORTS = ["name", "-name", "price", "-price", "created_at", "-created_at"];

export const searches: readonly Attack[] = [
  {
    row: "39a",
    name: "16 searches at a time for aaaa…ab among 600 products of aab aaaa…",
    least: { "200": 5 },
    quick: ["one"],
    prepare: async (context) => {
      const seller = context.accounts.attackers[3]?.id ?? "";
      await insertProducts(context, { seller, count: 600, name: "'aab ' || n", description: "'aab ' || repeat('a', 4990)" });
      return {};
    },
    run: (attacker) =>
      attacker.flood(16, (lane) => attacker.send("GET", `/products?q=${NEEDLES[lane % 2] ?? ""}&min_price=${(lane + 1) / 100}`)),
    expect: ({ counts }) => (counts["400"] === undefined ? [] : [`${counts["400"]} searches were refused with 400, and not run`]),
  },
  {
    row: "39b",
    name: "64 searches and filters at a time, of everything that an index helps least with",
    least: { "200": 5 },
    run: (attacker) =>
      attacker.flood(64, () => {
        const params = new URLSearchParams({ q: attacker.pick(PAIRS), sort: attacker.pick(SORTS), limit: "100" });
        if (attacker.random() < 0.5) params.set("in_stock", "false");
        params.set("min_price", String(Math.floor(attacker.random() * 10_000) / 100));
        if (attacker.random() < 0.5) params.set("category", "bench");
        return attacker.send("GET", `/products?${params.toString()}`);
      }),
  },
  {
    row: "39c",
    name: "16 lists at a time of 101 names of 200 ligatures, sorted by name",
    least: { "200": 5 },
    prepare: async (context) => {
      const seller = context.accounts.attackers[4]?.id ?? "";
      await insertProducts(context, { seller, count: 101, name: "repeat('ﷺ', 200)", description: "null" });
      return { seller: [seller] };
    },
    run: (attacker) =>
      attacker.flood(16, () => {
        const price = Math.floor(attacker.random() * 1_000_000) / 100; // no two lists share a result
        return attacker.send(
          "GET",
          `/products?seller_id=${attacker.ids("seller")[0] ?? ""}&sort=name&limit=100&max_price=${2_000_000 + price}`,
        );
      }),
  },
  {
    row: "39d",
    name: "16 searches at a time among 20,000 products of one seller, of which none match",
    least: { "503": 5 },
    prepare: async (context) => {
      const seller = context.accounts.attackers[5]?.id ?? "";
      await insertProducts(context, { seller, count: 20_000, name: "'aab ' || n", description: "repeat('a', 290)" });
      return { seller: [seller] };
    },
    run: (attacker) =>
      attacker.flood(16, () => {
        const price = Math.floor(attacker.random() * 100_000) / 100; // no two lists share a result
        return attacker.send("GET", `/products?q=${NEEDLES[1] ?? ""}&seller_id=${attacker.ids("seller")[0] ?? ""}&min_price=${price}`);
      }),
  },
  {
    row: "39e",
    name: "16 lists at a time with two filters, among 200,000 products of one seller, of which none match",
    least: { "200": 5 },
    prepare: async (context) => {
      const seller = context.accounts.attackers[6]?.id ?? "";
      for (let i = 0; i < 20; i++) await insertProducts(context, { seller, count: 10_000, name: "'p' || n", description: "null" });
      return { seller: [seller] };
    },
    run: (attacker) =>
      attacker.flood(16, () => {
        const price = Math.floor(attacker.random() * 100_000) / 100;
        return attacker.send("GET", `/products?category=none&seller_id=${attacker.ids("seller")[0] ?? ""}&sort=-price&min_price=${price}`);
      }),
  },
];
