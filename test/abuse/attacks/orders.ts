import type { Attack } from "../attack";
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
];
