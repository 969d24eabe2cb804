import type { Middleware } from "moleculer";
import { Agent, request } from "node:http";
import { until } from "../../testkit/until";
import { testId } from "../../testkit/ids";
import type { GatewayLimits } from "../../services/api/api.service";
import { startShop, type Shop } from "../../testkit/shop";

/** Lists of orders and reads of products wait until the test releases them. */
let open = (): void => undefined;
let gate = Promise.resolve();
const shut = (): void => {
  gate = new Promise((resolve) => (open = resolve));
};
const started: string[] = [];
const gated: Middleware = {
  name: "Gated",
  localAction: (next, action) =>
    async function (ctx) {
      if (action.name !== "orders.list" && action.name !== "products.getMany") return next.call(this, ctx) as unknown;
      started.push(action.name);
      await gate;
      // How many requests a database can serve at once depends on the machine and isn't tested here.
      return action.name === "orders.list" ? { items: [], next_cursor: null } : (ctx.params as { ids: string[] }).ids.map(() => null);
    },
};

/** A product that does not exist. */
const PRODUCT = `/products/${testId(1)}`;

let shop: Shop;
async function start(limits: GatewayLimits = {}): Promise<void> {
  shop = await startShop({ broker: { middlewares: [gated] }, limits });
  started.length = 0;
}
/** So few that even a busy machine sends all of them before the first has waited for too long. */
const FEW = { admission: { slots: 16, places: 16 } };
afterEach(async () => {
  open();
  await shop.stop();
});

interface Response {
  status: number;
  retryAfter: string | undefined;
  code: string | undefined;
}

/** Sends a client's requests from an address of its own. */
function clientAt(localAddress: string, token?: string) {
  const agent = new Agent({ maxSockets: Infinity });
  const headers = token === undefined ? {} : { Authorization: `Bearer ${token}` };
  return (path: string) =>
    new Promise<Response>((resolve, reject) => {
      request(shop.url + path, { agent, localAddress, headers }, (res) => {
        let text = "";
        res.on("data", (chunk: Buffer) => (text += chunk.toString()));
        res.on("end", () => {
          const { code } = JSON.parse(text) as { code?: string };
          resolve({ status: res.statusCode ?? 0, retryAfter: res.headers["retry-after"], code });
        });
      })
        .on("error", reject)
        .end();
    });
}

/** Sends many requests, and collects the responses as they arrive. */
function flood(get: (path: string) => Promise<Response>, path: string, n: number) {
  const responses: Response[] = [];
  const all = Promise.all(Array.from({ length: n }, () => get(path).then((response) => responses.push(response))));
  return { responses, all };
}

describe("a gateway with more requests than it can serve", () => {
  it("refuses one address beyond its share with 429 and Retry-After, and serves others at once when a place is free", async () => {
    await start(FEW);
    shut();
    const greedy = flood(clientAt("127.0.0.2"), PRODUCT, 60);
    await until("the surplus is refused", () => greedy.responses.length >= 40);
    expect(greedy.responses).toHaveLength(40); // 16 are in progress, and 4 of 16 places are the address's share
    expect(greedy.responses.every(({ status, retryAfter }) => status === 429 && retryAfter === "1")).toBe(true);
    const other = clientAt("127.0.0.3");
    expect(await other("/health/ready")).toMatchObject({ status: 200 });
    const modest = other(`/products/${testId(2)}`);
    open();
    expect(await modest).toMatchObject({ status: 404 });
    await greedy.all;
    expect(greedy.responses.filter(({ status }) => status === 404)).toHaveLength(20);
  });

  it("refuses all clients with 503 and Retry-After when all places are taken, and is still ready", async () => {
    await start(FEW);
    shut();
    const floods = [2, 3, 4, 5, 6].map((n) => flood(clientAt(`127.0.0.${n}`), PRODUCT, 20));
    const refused = () => floods.flatMap(({ responses }) => responses);
    await until("the surplus is refused", () => refused().length >= 100 - 32);
    expect(refused()).toHaveLength(100 - 32);
    expect(await clientAt("127.0.0.7")(PRODUCT)).toEqual({ status: 503, retryAfter: "2", code: "SERVICE_UNAVAILABLE" });
    expect(await clientAt("127.0.0.7")("/health/ready")).toMatchObject({ status: 200 });
    open();
    await Promise.all(floods.map(({ all }) => all));
    expect(await clientAt("127.0.0.7")(PRODUCT)).toMatchObject({ status: 404 });
  });

  it("lets slow lists wait only for each other, and nothing else for them", async () => {
    await start();
    const buyer = shop.client();
    await buyer.signUp();
    const product = await buyer.createProduct();
    shut();
    const lists = flood(clientAt("127.0.0.2", buyer.token), "/orders", 30);
    await until("the surplus is refused", () => lists.responses.length >= 10);
    expect(started.filter((name) => name === "orders.list")).toHaveLength(4); // an address's share is 16 of 64 places
    expect(lists.responses.every(({ status }) => status === 429)).toBe(true);
    const { status, body } = await buyer.order(product, 1);
    expect(status).toBe(201);
    expect((await buyer.post(`/orders/${body["id"]}/cancel`)).status).toBe(200);
    open();
    await lists.all;
    expect(lists.responses.filter((response) => response.status === 200)).toHaveLength(20);
  });
});

describe("a client that disconnects", () => {
  it("has its queued requests dropped: they are not started when their turn comes", async () => {
    await start();
    const buyer = shop.client();
    await buyer.signUp();
    shut();
    const agent = new Agent({ maxSockets: Infinity });
    const left = Array.from({ length: 16 }, () => {
      const req = request(`${shop.url}/orders`, {
        agent,
        localAddress: "127.0.0.2",
        headers: { Authorization: `Bearer ${buyer.token ?? ""}` },
      });
      req.on("error", () => undefined).end(); // the client disconnects
      return req;
    });
    const lane = shop.node("api").getLocalService("api") as unknown as { lanes: { lists: { waiting: number } } };
    await until("twelve wait", () => lane.lanes.lists.waiting === 12);
    for (const req of left) req.destroy();
    const stays = clientAt("127.0.0.3", buyer.token)("/orders");
    await until("another waits", () => lane.lanes.lists.waiting === 13);
    open();
    expect(await stays).toMatchObject({ status: 200 });
    expect(started.filter((name) => name === "orders.list")).toHaveLength(5);
  });
});
