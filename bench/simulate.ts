import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { simulate, type Costs, type Layout, type Prediction } from "./model/shop";
import { table, type Results } from "./report";
import type { Cell } from "./table";

/*
 * What more nodes and cores would bring, by a simulation of the shop with the costs that a run of the benchmark measured.
 * It is fitted to one and to 128 connections of one node a service, and judged by what it was not told: 32 connections, and
 * two nodes of products and orders.
 */

const COMPONENTS = ["generator", "gateway", "rabbitmq", "products", "orders", "postgres"] as const;
type Component = (typeof COMPONENTS)[number];
/** After a POST is answered the same components do about as much again, to reserve and to confirm. */
const LATER = { get: 0, post: 0.5 };
/** Batches of one kind that a gateway has under way. */
const UNDER_WAY = 2;
const FITTED = 128;
const ITERATIONS = 8;
const HERE = 2; // cores of the machine that was measured

const ONE: Omit<Layout, "connections"> = { cores: HERE, gateways: 1, orders: 1, products: 1 };
const TWO: Omit<Layout, "connections"> = { cores: HERE, gateways: 1, orders: 2, products: 2 };

const component = (role: string): Component | undefined =>
  COMPONENTS.find((one) => role.includes(one)) ?? (role.includes("api") ? "gateway" : undefined);

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN;

/** µs of CPU a request, by component, and requests a second: medians of the rounds. */
function measured(cell: Cell): { costs: Record<Component, number>; rate: number } {
  const costs = Object.fromEntries(COMPONENTS.map((name) => [name, 0])) as Record<Component, number>;
  for (const role of Object.keys(cell.rounds[0]?.cpu ?? {})) {
    const name = component(role);
    if (name !== undefined) costs[name] += 1_000 * median(cell.rounds.map(({ cpu }) => cpu[role] ?? 0));
  }
  return { costs, rate: median(cell.rounds.map(({ rate }) => rate)) };
}

/** Splits each component's cost into what a batch and what an item costs, so that one and 128 connections come out right. */
function fit(lone: Cell, many: Cell, later: number, underWay: number): Costs {
  const [first, full] = [measured(lone), measured(many)];
  let meanBatch = FITTED / 3;
  let costs: Costs | undefined;
  for (let n = 0; n < ITERATIONS; n++) {
    const split = (name: Component) => {
      const batch = Math.max(0, (first.costs[name] - full.costs[name]) / (1 - 1 / meanBatch));
      return { batch, item: Math.max(0, full.costs[name] - batch / meanBatch) };
    };
    const busy = COMPONENTS.reduce(
      (sum, name) => sum + first.costs[name] * (name === "generator" || name === "gateway" ? 1 : 1 - later),
      0,
    );
    costs = {
      generator: { batch: 0, item: full.costs.generator },
      gateway: split("gateway"),
      rabbitmq: split("rabbitmq"),
      products: split("products"),
      orders: split("orders"),
      postgres: split("postgres"),
      latency: Math.max(0, 1e6 / first.rate - busy),
      later,
      underWay,
    };
    meanBatch = simulate(costs, { ...ONE, connections: FITTED }).meanBatch;
  }
  if (costs === undefined) throw new Error("nothing was fitted");
  return costs;
}

const show = ({ rate, meanBatch, busiest }: Prediction): string[] => [
  rate.toFixed(0),
  meanBatch.toFixed(0),
  ...Object.values(busiest).map((share) => `${(100 * share).toFixed(0)} %`),
];

function report(results: Results, scenario: "get" | "post"): string {
  const find = (key: string, connections: number): Cell => {
    const cell = results.cells.find((one) => one.scenario === scenario && one.key === key && one.connections === connections);
    if (cell === undefined) throw new Error(`the results lack ${scenario} c${connections} of ${key}: run npm run bench first`);
    return cell;
  };
  const costs = fit(find("shop", 1), find("shop", FITTED), LATER[scenario], UNDER_WAY);
  const tests: [string, string, number, typeof ONE][] = [
    ["one node each, fitted", "shop", 1, ONE],
    ["one node each, fitted", "shop", FITTED, ONE],
    ["one node each", "shop", 32, ONE],
    ["two products, two orders", "shop2", 32, TWO],
    ["two products, two orders", "shop2", FITTED, TWO],
  ];
  const checks = tests.map(([what, key, connections, layout]) => {
    const predicted = simulate(costs, { ...layout, connections }).rate;
    const real = measured(find(key, connections)).rate;
    return [what, String(connections), predicted.toFixed(0), real.toFixed(0), (predicted / real).toFixed(2)];
  });
  const layouts: [string, Layout][] = [
    ["1 gateway, 1 + 1", { cores: 2, gateways: 1, orders: 1, products: 1, connections: 256, loadElsewhere: true }],
    ["1 gateway, 1 + 1", { cores: 8, gateways: 1, orders: 1, products: 1, connections: 1024, loadElsewhere: true }],
    ["4 gateways, 1 + 1", { cores: 8, gateways: 4, orders: 1, products: 1, connections: 1024, loadElsewhere: true }],
    ["4 gateways, 2 + 2", { cores: 8, gateways: 4, orders: 2, products: 2, connections: 1024, loadElsewhere: true }],
    ["16 gateways, 4 + 4", { cores: 32, gateways: 16, orders: 4, products: 4, connections: 4096, loadElsewhere: true }],
    ["48 gateways, 12 + 12", { cores: 96, gateways: 48, orders: 12, products: 12, connections: 12_288, loadElsewhere: true }],
  ];
  return [
    `## ${scenario === "get" ? "GET /products/{id}" : "POST /orders"}`,
    table(
      ["component", "µs a batch", "µs an item"],
      COMPONENTS.map((name) => [name, costs[name].batch.toFixed(0), costs[name].item.toFixed(1)]),
    ),
    `Waiting for no core (disk, network, wake-ups): ${costs.latency.toFixed(0)} µs a batch.`,
    table(["layout", "connections", "simulated/s", "measured/s", "ratio"], checks),
    table(
      ["layout", "cores", "simulated/s", "mean batch", "busiest gateway", "busiest orders", "busiest products"],
      layouts.map(([what, layout]) => [what, String(layout.cores), ...show(simulate(costs, layout, 1))]),
    ),
  ].join("\n\n");
}

/** Reads the results of the last run in a folder, and writes what they predict beside them. */
export function simulateShop(out: string): void {
  const results = JSON.parse(readFileSync(path.join(out, "results.json"), "utf8")) as Results; // what report.ts has written
  const text = [
    "# Simulation by the costs of the last `npm run bench`",
    "Load from other machines in the lower tables; PostgreSQL and RabbitMQ take their share of the same cores, as many as there are.",
    report(results, "get"),
    report(results, "post"),
  ].join("\n\n");
  writeFileSync(path.join(out, "simulation.md"), `${text}\n`);
  console.log(text);
}
