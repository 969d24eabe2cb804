import { testId } from "../../../testkit/ids";
import type { Attack } from "../attack";
import { httpText, type Tools } from "../tools";

/** Keeps `count` connections open, and replaces closed ones; `use` works with each while it is open. */
async function keepOpen(tools: Tools, count: number, use: (wire: ReturnType<Tools["wire"]>, lane: number) => Promise<void>): Promise<void> {
  await tools.flood(count, async (lane) => {
    const wire = tools.wire();
    if (await wire.opened()) await use(wire, lane);
    wire.destroy();
    await tools.pause(200 + 300 * tools.random());
  });
}

/** Sends one byte per second, until all are sent or the connection is closed. */
async function drip(tools: Tools, wire: ReturnType<Tools["wire"]>, bytes: Buffer): Promise<void> {
  for (const byte of bytes) {
    if (!wire.isOpen || tools.isOver) return;
    wire.write(Buffer.of(byte));
    await tools.pause(1_000);
  }
}

/** Just before the deadline of a response, 4.9 s after its request's head. */
const LATE_MS = 4_870;

const CHUNKS = Buffer.from("1\r\na\r\n".repeat(10_000));

const closedOrOver = (tools: Tools, wire: ReturnType<Tools["wire"]>): Promise<unknown> =>
  Promise.race([wire.closed(), tools.pause(tools.leftMs)]);

export const connections: readonly Attack[] = [
  {
    row: "36a",
    name: "2,500 connections that send nothing, and 2,500 that send half a head",
    least: { connections: 100, "connections closed": 20 },
    run: (tools) =>
      keepOpen(tools, 5_000, async (wire, lane) => {
        if (lane % 2 === 1) wire.write("GET /products HTTP/1.1\r\nHost: shop.test\r\nX-Half:");
        await closedOrOver(tools, wire);
      }),
  },
  {
    row: "36b",
    name: "1,600 connections that send a byte a second, 600 of a head and 1,000 of a body",
    least: { connections: 50, "429": 10 },
    run: (tools) =>
      keepOpen(tools, 1_600, async (wire, lane) => {
        if (lane % 8 < 3) return drip(tools, wire, httpText("GET", "/products", { headers: { "X-Slow": "x".repeat(200) } }));
        const whole = httpText("POST", "/token", { json: { email: "slow@abuse.test", password: "x".repeat(60) } });
        const head = whole.indexOf("\r\n\r\n") + 4;
        wire.write(whole.subarray(0, head));
        return drip(tools, wire, whole.subarray(head));
      }),
  },
  {
    row: "36d",
    name: "25 requests a second whose last byte comes just before their time is over",
    least: { connections: 5 },
    run: (tools) =>
      tools.paced(25, async () => {
        const wire = tools.wire();
        const whole = httpText("POST", "/products", { token: tools.token, json: { name: "late", price: 1, quantity: 1 } });
        if (await wire.opened()) {
          wire.write(whole.subarray(0, -1));
          await tools.pause(LATE_MS);
          wire.write(whole.subarray(-1));
          await wire.status(1_000);
        }
        wire.destroy();
      }),
  },
  {
    row: "36e",
    name: "8 connections send bodies that nobody wants, in chunks of one byte and without end",
    least: { "connections closed": 10 },
    run: (tools) =>
      keepOpen(tools, 8, async (wire, lane) => {
        const head = lane % 2 === 0 ? `GET /products/${testId(1)}` : "POST /token";
        wire.write(`${head} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n`);
        while (wire.isOpen && !tools.isOver) {
          wire.write(CHUNKS);
          await tools.pause(5);
        }
      }),
  },
  {
    row: "36c",
    name: "1,500 connections that made a request and keep quiet",
    least: { "200": 50, "connections closed": 20 },
    run: (tools) =>
      keepOpen(tools, 1_500, async (wire) => {
        wire.write(httpText("GET", `/products/${testId(1)}`));
        await closedOrOver(tools, wire);
      }),
  },
];
