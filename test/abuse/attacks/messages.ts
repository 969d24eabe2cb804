import type { Attack } from "../attack";
import { httpText } from "../attacker";
import { insertBigProducts, insertLongOrders } from "../data";

const LISTS = 14;
const ORDERS = 130;
const ROUND_MS = 250;
const READERS = 250;

export const messages: readonly Attack[] = [
  {
    row: "38a",
    name: `${LISTS} different lists of big products at once, batched into one message`,
    least: { "200": 5 },
    quick: ["nodes"],
    prepare: async (context) => {
      const seller = context.accounts.attackers[1]?.id ?? "";
      await insertBigProducts(context, seller);
      return { seller: [seller] };
    },
    run: async (attacker) => {
      const [seller = ""] = attacker.ids("seller");
      await attacker.flood(1, async () => {
        const list = (_: unknown, n: number) => attacker.send("GET", `/products?limit=100&seller_id=${seller}&min_price=${(n + 1) / 100}`);
        await Promise.all(Array.from({ length: LISTS }, list));
        await attacker.pause(ROUND_MS);
      });
    },
  },
  {
    row: "38b",
    name: `${ORDERS} reads of orders with 100 long lines at once, batched into one message`,
    least: { "200": 20 },
    prepare: async (context) => ({ orders: await insertLongOrders(context, context.accounts.attackers[2]?.id ?? "", ORDERS) }),
    run: async (attacker) => {
      const token = attacker.target.accounts[2]?.token;
      const all = Buffer.concat(attacker.ids("orders").map((id) => httpText("GET", `/orders/${id}`, { token })));
      await attacker.flood(1, async () => {
        const before = attacker.responses;
        const connection = attacker.connect();
        if (await connection.opened()) connection.write(all);
        for (let waited = 0; connection.isOpen && attacker.responses < before + ORDERS && waited < 5_000 && !attacker.isOver; waited += 20)
          await attacker.pause(20);
        connection.destroy();
        await attacker.pause(ROUND_MS);
      });
    },
  },
  {
    row: "38c",
    name: `reads of orders as in 38b, ${READERS} at a time on as many connections`,
    least: { "200": 20 },
    prepare: async (context) => ({ orders: await insertLongOrders(context, context.accounts.attackers[2]?.id ?? "", ORDERS) }),
    run: (attacker) => {
      const token = attacker.target.accounts[2]?.token;
      return attacker.flood(READERS, () => attacker.send("GET", `/orders/${attacker.pick(attacker.ids("orders"))}`, { token }));
    },
  },
  {
    row: "38d",
    name: `reads of the largest products, ${READERS} at a time on as many connections`,
    least: { "200": 20 },
    prepare: async (context) => ({ products: await insertBigProducts(context, context.accounts.attackers[1]?.id ?? "") }),
    run: (attacker) => attacker.flood(READERS, () => attacker.send("GET", `/products/${attacker.pick(attacker.ids("products"))}`)),
  },
];
