import { setTimeout as delay } from "node:timers/promises";
import type { Middleware } from "moleculer";
import { SERVICES } from "../../config";
import { version } from "../../package.json";
import { ADMIN } from "../../testkit/admin";
import { startShop, type Shop } from "../../testkit/shop";

let shop: Shop;
afterEach(() => shop.stop());

const figures = { uptime: expect.any(Number), cpu: expect.any(Number), memory: expect.any(Number) };

interface Item {
  id: string;
  uptime: number;
  cpu: number;
  memory: number;
}

/** The response to an admin, sorted by id. */
async function list(): Promise<Item[]> {
  const admin = await shop.client().login(ADMIN.email, ADMIN.password);
  const { status, body } = await admin.get<{ items: Item[] }>("/admin/nodes");
  expect(status).toBe(200);
  return body.items.sort((a, b) => a.id.localeCompare(b.id));
}

describe("GET /admin/nodes", () => {
  it("shows the services, version, uptime and memory of a single process, and only to admins", async () => {
    shop = await startShop();
    const items = await list();
    expect(items).toEqual([{ id: shop.node("api").nodeID, services: [...SERVICES].sort(), version, ...figures }]);
    const { uptime, cpu, memory } = items[0]!;
    expect(uptime).toBe(Math.floor(uptime));
    expect(Math.abs(uptime - process.uptime())).toBeLessThan(5);
    expect(Math.abs(memory / process.memoryUsage.rss() - 1)).toBeLessThan(0.5);
    expect([cpu >= 0, cpu <= 100]).toEqual([true, true]);

    const client = shop.client();
    expect(await client.get("/admin/nodes")).toMatchObject({ status: 401, body: { code: "UNAUTHENTICATED" } });
    await client.signUp();
    expect(await client.get("/admin/nodes")).toMatchObject({ status: 403, body: { code: "FORBIDDEN" } });
  });

  it("shows the services of several nodes, with nulls for one that hangs, and drops one that has left", async () => {
    const hangs: Middleware = {
      name: "Hangs",
      localAction: (next, { name }) =>
        async function (ctx) {
          if (name === "$node.health" && ctx.broker.nodeID.endsWith("-2")) await delay(2_000);
          return next.call(this, ctx) as unknown;
        },
    };
    shop = await startShop({ nodes: [["api", "users"], ["orders", "products"], ["products"]], broker: { middlewares: [hangs] } });
    const [first, second, third] = shop.nodes.map((node) => node.nodeID);
    const since = performance.now();
    expect(await list()).toEqual([
      { id: first, services: ["api", "users"], version, ...figures },
      { id: second, services: ["orders", "products"], version, ...figures },
      { id: third, services: ["products"], version, uptime: null, cpu: null, memory: null },
    ]);
    expect(performance.now() - since).toBeLessThan(3_000);
    await shop.nodes[2]?.stop();
    expect((await list()).map(({ id }) => id)).toEqual([first, second]);
  });
});
