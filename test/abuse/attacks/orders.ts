import { testId } from "../../../testkit/ids";
import type { Attack, AttackContext } from "../attack";
import type { Attacker } from "../attacker";
import { insertProducts } from "../data";

const HOT = testId(1);
const LANES = 64;

const order = (attacker: Attacker, token: string | undefined): Promise<number> =>
  attacker.send("POST", "/orders", { token, json: { items: [{ product_id: HOT, quantity: 1 }] } });

const SHELF = 100;
const shelf = async (context: AttackContext) => ({
  shelf: await insertProducts(context, {
    seller: context.accounts.attackers[7]?.id ?? "",
    count: SHELF,
    name: "'shelf ' || n",
    description: "null",
    quantity: 1_000_000,
  }),
});
const largeOrder = (attacker: Attacker, token: string | undefined): Promise<number> =>
  attacker.send("POST", "/orders", { token, json: { items: attacker.ids("shelf").map((product_id) => ({ product_id, quantity: 1 })) } });

export const orders: readonly Attack[] = [
  {
    row: "50a",
    name: `one user orders a hot product at full speed, ${LANES} at a time`,
    least: { "201": 20 },
    products: [HOT],
    run: (attacker) => attacker.flood(LANES, () => order(attacker, attacker.target.accounts[7]?.token)),
  },
  {
    row: "50b",
    name: `100 accounts order a hot product at full speed, ${LANES} at a time`,
    least: { "201": 20 },
    products: [HOT],
    run: (attacker) => attacker.flood(LANES, () => order(attacker, attacker.token)),
  },
  {
    row: "50c",
    name: `one user orders ${SHELF} products each, ${LANES} at a time`,
    least: { "201": 5 },
    prepare: shelf,
    run: (attacker) => attacker.flood(LANES, () => largeOrder(attacker, attacker.target.accounts[7]?.token)),
  },
  {
    row: "50d",
    name: `100 accounts order ${SHELF} products each, ${LANES} at a time`,
    least: { "201": 5 },
    prepare: shelf,
    run: (attacker) => attacker.flood(LANES, () => largeOrder(attacker, attacker.token)),
  },
];
