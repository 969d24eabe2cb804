import { testId } from "../../../testkit/ids";
import type { Attack, Stage } from "../attack";
import { insertProducts } from "../data";
import type { Tools } from "../tools";

const HOT = testId(1);
const LANES = 64;

const order = (tools: Tools, token: string | undefined): Promise<number> =>
  tools.send("POST", "/orders", { token, json: { items: [{ product_id: HOT, quantity: 1 }] } });

const SHELF = 100;
const shelf = async (stage: Stage) => ({
  shelf: await insertProducts(stage, {
    seller: stage.people.attackers[7]?.id ?? "",
    count: SHELF,
    name: "'shelf ' || n",
    description: "null",
    quantity: 1_000_000,
  }),
});
const largeOrder = (tools: Tools, token: string | undefined): Promise<number> =>
  tools.send("POST", "/orders", { token, json: { items: tools.ids("shelf").map((product_id) => ({ product_id, quantity: 1 })) } });

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
    name: `one user orders ${SHELF} products each, ${LANES} at a time`,
    least: { "201": 5 },
    prepare: shelf,
    run: (tools) => tools.flood(LANES, () => largeOrder(tools, tools.target.accounts[7]?.token)),
  },
  {
    row: "50d",
    name: `100 accounts order ${SHELF} products each, ${LANES} at a time`,
    least: { "201": 5 },
    prepare: shelf,
    run: (tools) => tools.flood(LANES, () => largeOrder(tools, tools.token)),
  },
];
