import type { Attack } from "../attack";
import { insertBigProducts, insertLongOrders } from "../data";
import { httpText } from "../tools";

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
    prepare: async (stage) => {
      const seller = stage.people.attackers[1]?.id ?? "";
      await insertBigProducts(stage, seller);
      return { seller: [seller] };
    },
    run: async (tools) => {
      const [seller = ""] = tools.ids("seller");
      await tools.flood(1, async () => {
        const list = (_: unknown, n: number) => tools.send("GET", `/products?limit=100&seller_id=${seller}&min_price=${(n + 1) / 100}`);
        await Promise.all(Array.from({ length: LISTS }, list));
        await tools.pause(ROUND_MS);
      });
    },
  },
  {
    row: "38b",
    name: `${ORDERS} reads of orders with 100 long lines at once, batched into one message`,
    least: { "200": 20 },
    prepare: async (stage) => ({ orders: await insertLongOrders(stage, stage.people.attackers[2]?.id ?? "", ORDERS) }),
    run: async (tools) => {
      const token = tools.target.accounts[2]?.token;
      const all = Buffer.concat(tools.ids("orders").map((id) => httpText("GET", `/orders/${id}`, { token })));
      await tools.flood(1, async () => {
        const before = tools.responses;
        const wire = tools.wire();
        if (await wire.opened()) wire.write(all);
        for (let waited = 0; wire.isOpen && tools.responses < before + ORDERS && waited < 5_000 && !tools.isOver; waited += 20)
          await tools.pause(20);
        wire.destroy();
        await tools.pause(ROUND_MS);
      });
    },
  },
  {
    row: "38c",
    name: `reads of orders as in 38b, ${READERS} at a time on as many connections`,
    least: { "200": 20 },
    prepare: async (stage) => ({ orders: await insertLongOrders(stage, stage.people.attackers[2]?.id ?? "", ORDERS) }),
    run: (tools) => {
      const token = tools.target.accounts[2]?.token;
      return tools.flood(READERS, () => tools.send("GET", `/orders/${tools.pick(tools.ids("orders"))}`, { token }));
    },
  },
];
