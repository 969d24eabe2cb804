import { MAX_LINES } from "../../../contracts/contract";
import type { Attack } from "../attack";
import { insertProducts } from "../data";
import type { Tools } from "../tools";

const HOT = 1;
const LANES = 64;

const order = (tools: Tools, token: string | undefined): Promise<number> =>
  tools.send("POST", "/orders", { token, json: { items: [{ product_id: HOT, quantity: 1 }] } });

export const orders: readonly Attack[] = [
  {
    row: "50a",
    name: `one user orders a hot product at full speed, ${LANES} at a time`,
    least: { "201": 20 },
    products: [HOT],
    run: (tools) => tools.flood(LANES, () => order(tools, tools.target.accounts[7]?.token)),
  },
  {
    row: "50b",
    name: `100 accounts order a hot product at full speed, ${LANES} at a time`,
    least: { "201": 20 },
    products: [HOT],
    run: (tools) => tools.flood(LANES, () => order(tools, tools.token)),
  },
  {
    row: "50c",
    name: `100 accounts order ${MAX_LINES} products at once, ${LANES} at a time`,
    least: { "201": 20 },
    prepare: async (stage) => {
      const seller = stage.people.attackers[9]?.id ?? 0;
      const product = { seller, count: MAX_LINES, name: "'one of many ' || n", description: "null", quantity: 1_000_000 };
      return { products: await insertProducts(stage, product) };
    },
    run: (tools) => {
      const items = tools.ids("products").map((product_id) => ({ product_id, quantity: 1 }));
      return tools.flood(LANES, () => tools.send("POST", "/orders", { token: tools.token, json: { items } }));
    },
  },
];
