import type { Middleware } from "moleculer";
import { Agent, request } from "node:http";
import { until } from "../support/amqp";
import { startShop, type Shop } from "../support/shop";

/** Empty lists of orders, which wait until they are let go. */
let open = (): void => undefined;
let gate = Promise.resolve();
const shut = (): void => {
  gate = new Promise((resolve) => (open = resolve));
};
const gated: Middleware = {
  name: "Gated",
  localAction: (next, action) =>
    async function (ctx) {
      if (action.name !== "orders.list") return next.call(this, ctx) as unknown;
      await gate;
      return { items: [], next_cursor: null }; // how many a database can list at once is another matter, and the machine's
    },
};

let shop: Shop;
beforeAll(async () => (shop = await startShop({ broker: { middlewares: [gated] } })));
afterAll(async () => {
  open();
  await shop.stop();
});

const agent = new Agent({ maxSockets: Infinity });
let token = "";
const get = (path: string) =>
  new Promise<{ status: number; retryAfter: string | undefined; code: string | undefined }>((resolve, reject) => {
    request(shop.url + path, { agent, headers: { Authorization: `Bearer ${token}` } }, (res) => {
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

describe("a gateway with more requests than it can serve", () => {
  it("refuses the surplus at once with 503 and Retry-After, answers /health/ready, serves the others, and then everyone", async () => {
    const buyer = shop.client();
    await buyer.signUp();
    token = buyer.token ?? "";
    shut();
    const answers: Awaited<ReturnType<typeof get>>[] = [];
    const all = Array.from({ length: 1_000 }, () => get("/orders").then((answer) => answers.push(answer)));
    await until("the surplus is refused", () => answers.length >= 488);
    expect(await get("/health/ready")).toMatchObject({ status: 200 });
    expect(await get("/orders")).toEqual({ status: 503, retryAfter: "2", code: "SERVICE_UNAVAILABLE" });
    expect(answers).toHaveLength(488);
    open();
    await Promise.all(all);
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(512);
    expect(answers.filter(({ status, retryAfter }) => status === 503 && retryAfter === "2")).toHaveLength(488);
    expect(await get("/orders")).toMatchObject({ status: 200 });
    agent.destroy();
  });
});
