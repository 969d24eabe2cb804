import { testId } from "../testkit/ids";
import { PRODUCTS, WORDS } from "../testkit/seed-products";
import { sql } from "../testkit/sql";
import type { Request } from "./load";
import { USER_IDS } from "./shop";
import type { Target } from "./targets";

export interface Scenario {
  name: string;
  connections: readonly number[];
  /** The requests that connections choose from; called before the measurement. */
  requests(target: Target): Request[] | Promise<Request[]>;
}

const every = Array.from({ length: PRODUCTS }, (_, n) => n + 1);

const bearer = (target: Target, user: number): Record<string, string> => {
  const token = target.tokens[(user - 1) % Math.max(1, target.tokens.length)];
  return token === undefined ? {} : { Authorization: `Bearer ${token}` };
};

const getProduct = (n: number): Request => ({ method: "GET", path: `/products/${testId(n)}` });

/** One line, one unit, and no key: the gateway generates one. */
const postOrder = (target: Target, product: number, user: number): Request => ({
  method: "POST",
  path: "/orders",
  headers: { "Content-Type": "application/json", ...bearer(target, user) },
  body: JSON.stringify({ items: [{ product_id: testId(product), quantity: 1 }] }),
});

export const gets = (): Request[] => every.map(getProduct);
export const posts = (target: Target): Request[] => every.map((n) => postOrder(target, n, n));

/** 60 % reads of a product, 20 % lists, 10 % reads of an order, 10 % new orders. */
export async function mixture(target: Target): Promise<Request[]> {
  const orders =
    target.ordersDatabase === undefined
      ? []
      : await sql<{ id: string; user_id: string }>(target.ordersDatabase, "select id, user_id from orders order by id desc limit 100");
  if (orders.length === 0) throw new Error(`${target.name} has no orders to read yet`);
  const some = (count: number): number[] => Array.from({ length: count }, () => 1 + Math.floor(Math.random() * PRODUCTS));
  return [
    ...every.slice(0, 600).map(getProduct),
    ...Array<Request>(200).fill({ method: "GET", path: "/products?limit=20" }),
    ...Array.from({ length: 100 }, (_, n): Request => {
      const order = orders[n % orders.length] ?? { id: "", user_id: "" };
      return { method: "GET", path: `/orders/${order.id}`, headers: bearer(target, 1 + USER_IDS.indexOf(order.user_id)) };
    }),
    ...some(100).map((n) => postOrder(target, n, n)),
  ];
}

export const SCENARIOS: readonly Scenario[] = [
  { name: "get", connections: [1, 32, 128], requests: gets },
  { name: "post", connections: [1, 32, 128], requests: posts },
  { name: "list", connections: [32], requests: () => [{ method: "GET", path: "/products?limit=20" }] },
  {
    name: "search",
    connections: [32],
    requests: () => WORDS.map((word) => ({ method: "GET", path: `/products?q=${word}` })),
  },
  { name: "mixed", connections: [32], requests: mixture },
  { name: "hot", connections: [32], requests: (target) => every.map((user) => postOrder(target, 1, user)) },
];
