import { testId } from "../../../testkit/ids";
import type { Attack, AttackContext } from "../attack";
import type { Attacker } from "../attacker";
import { insertProducts } from "../data";

const HOT = testId(1);
const LANES = 64;

const order = (attacker: Attacker, token: string | undefined): Promise<number> =>
  attacker.send("POST", "/orders", { token, json: { items: [{ product_id: HOT, quantity: 1 }] } });

const SHELF = 100;
/** Prepares products of one of the attackers, whose ids get this name. */
const ownProducts = (name: string, products: Omit<Parameters<typeof insertProducts>[1], "seller">) => async (context: AttackContext) => ({
  [name]: await insertProducts(context, { seller: context.accounts.attackers[7]?.id ?? "", ...products }),
});
const shelf = ownProducts("shelf", { count: SHELF, name: "'shelf ' || n", description: "null", quantity: 1_000_000 });
const largeOrder = (attacker: Attacker, token: string | undefined): Promise<number> =>
  attacker.send("POST", "/orders", { token, json: { items: attacker.ids("shelf").map((product_id) => ({ product_id, quantity: 1 })) } });

/** Products with the longest texts, of which one unit is left. */
const rare = ownProducts("rare", {
  count: 512,
  name: "repeat('ﷺ', 200)",
  description: "array_to_string(array(select chr(19968 + (random() * 20000)::int) from generate_series(1, 5000) where n > 0), '')",
  quantity: 1,
});

/** Orders one unit of each product, and cancels the order once it is confirmed. */
async function orderAndCancel(attacker: Attacker, ids: readonly string[]): Promise<void> {
  const { token } = attacker;
  const id = await attacker.create("/orders", { token, json: { items: ids.map((product_id) => ({ product_id, quantity: 1 })) } });
  if (id === undefined) return;
  await attacker.pause(200); // until it is confirmed
  await attacker.send("POST", `/orders/${id}/cancel`, { token });
  await attacker.pause(100);
}

/** The nth of `of` parts of a list. */
const part = (ids: readonly string[], n: number, of: number): readonly string[] => ids.filter((_, i) => i % of === n % of);

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
  {
    row: "50e",
    name: `100 accounts sell out 8 products with the longest texts each, and cancel, ${LANES} at a time`,
    least: { "201": 5, "200": 5 },
    prepare: rare,
    run: (attacker) => attacker.flood(LANES, (lane) => orderAndCancel(attacker, part(attacker.ids("rare"), lane, LANES))),
  },
  {
    row: "50f",
    name: "100 accounts sell out 50 of them each, together with 50 products that others order, 10 at a time, and cancel",
    least: { "201": 2, "200": 2 },
    prepare: rare,
    run: (attacker) =>
      attacker.flood(10, (lane) => {
        const others = Array.from({ length: 50 }, (_, n) => testId(1 + ((lane * 50 + n) % 1_000)));
        return orderAndCancel(attacker, [...part(attacker.ids("rare"), lane, 10).slice(0, 50), ...others]);
      }),
  },
  {
    row: "50g",
    name: "100 accounts order 8 or 100 of the products that others order, 64 at a time, and cancel",
    least: { "201": 5, "200": 5 },
    run: (attacker) =>
      attacker.flood(LANES, (lane) => {
        const count = lane % 4 === 0 ? SHELF : 8;
        const first = Math.floor(attacker.random() * 1_000);
        return orderAndCancel(
          attacker,
          Array.from({ length: count }, (_, n) => testId(1 + ((first + n * 7) % 1_000))),
        );
      }),
  },
  {
    row: "50h",
    name: "100 accounts order 8 products with long names each, 256 at a time",
    least: { "201": 50 },
    prepare: ownProducts("long names", { count: SHELF, name: "repeat('ﷺ', 190) || n", description: "null", quantity: 1_000_000 }),
    run: (attacker) =>
      attacker.flood(256, (lane) => {
        const items = Array.from({ length: 8 }, (_, n) => ({
          product_id: attacker.ids("long names")[(lane + n * 7) % SHELF],
          quantity: 1,
        }));
        return attacker.send("POST", "/orders", { token: attacker.token, json: { items } });
      }),
  },
];
