import { testId } from "../../../testkit/ids";
import { PASSWORD } from "../accounts";
import type { Attack } from "../attack";
import { bigCatalogue } from "../data";
import { httpText, type Attacker, type RawConnection } from "../attacker";

/** Keeps `count` connections open, and replaces closed ones; `use` works with each while it is open. */
async function keepOpen(attacker: Attacker, count: number, use: (connection: RawConnection, lane: number) => Promise<void>): Promise<void> {
  await attacker.flood(count, async (lane) => {
    const connection = attacker.connect();
    if (await connection.opened()) await use(connection, lane);
    connection.destroy();
    await attacker.pause(200 + 300 * attacker.random());
  });
}

/** Sends one byte per second, until all are sent or the connection is closed. */
async function drip(attacker: Attacker, connection: RawConnection, bytes: Buffer): Promise<void> {
  for (const byte of bytes) {
    if (!connection.isOpen || attacker.isOver) return;
    connection.write(Buffer.of(byte));
    await attacker.pause(1_000);
  }
}

/** Sends requests on many connections: all but their last bytes first, then those at the same moment. */
async function sendAtOnce(attacker: Attacker, count: number, request: () => Buffer): Promise<void> {
  const connections = Array.from({ length: count }, () => attacker.connect());
  await Promise.all(connections.map((connection) => connection.opened()));
  while (!attacker.isOver && connections.some(({ isOpen }) => isOpen)) {
    const ready = connections.filter(({ isOpen }) => isOpen).map((connection) => ({ connection, bytes: request() }));
    for (const { connection, bytes } of ready) connection.write(bytes.subarray(0, -2));
    await attacker.pause(100);
    const responses = ready.map(({ connection }) => connection.status(3_000));
    for (const { connection, bytes } of ready) connection.write(bytes.subarray(-2));
    await Promise.all(responses);
  }
}

/** Sends a request whose last byte follows after `ms`. */
async function completeLate(attacker: Attacker, request: Buffer, ms: number): Promise<void> {
  const connection = attacker.connect();
  if (await connection.opened()) {
    connection.write(request.subarray(0, -1));
    await attacker.pause(ms);
    connection.write(request.subarray(-1));
    await connection.status(1_000);
  }
  connection.destroy();
}

/** Just before the deadline of a response, 4.9 s after its request's head. */
const LATE_MS = 4_870;
/** Leaves a login 100 ms, less than a hash takes. */
const LATE_LOGIN_MS = 4_800;

const CHUNKS = Buffer.from("1\r\na\r\n".repeat(10_000));

const closedOrOver = (attacker: Attacker, connection: RawConnection): Promise<unknown> =>
  Promise.race([connection.closed(), attacker.pause(attacker.leftMs)]);

export const connections: readonly Attack[] = [
  {
    row: "36a",
    name: "2,500 connections that send nothing, and 2,500 that send half a head",
    least: { connections: 100, "connections closed": 20 },
    run: (attacker) =>
      keepOpen(attacker, 5_000, async (connection, lane) => {
        if (lane % 2 === 1) connection.write("GET /products HTTP/1.1\r\nHost: shop.test\r\nX-Half:");
        await closedOrOver(attacker, connection);
      }),
  },
  {
    row: "36b",
    name: "1,600 connections that send a byte a second, 600 of a head and 1,000 of a body",
    least: { connections: 50, "429": 10 },
    run: (attacker) =>
      keepOpen(attacker, 1_600, async (connection, lane) => {
        if (lane % 8 < 3) return drip(attacker, connection, httpText("GET", "/products", { headers: { "X-Slow": "x".repeat(200) } }));
        const whole = httpText("POST", "/token", { json: { email: "slow@abuse.test", password: "x".repeat(60) } });
        const head = whole.indexOf("\r\n\r\n") + 4;
        connection.write(whole.subarray(0, head));
        return drip(attacker, connection, whole.subarray(head));
      }),
  },
  {
    row: "36d",
    name: "25 requests a second whose last byte comes just before their time is over",
    least: { connections: 5 },
    run: (attacker) =>
      attacker.paced(25, () => {
        const json = { name: "late", price: 1, quantity: 1 };
        return completeLate(attacker, httpText("POST", "/products", { token: attacker.token, json }), LATE_MS);
      }),
  },
  {
    row: "36j",
    name: "40 logins with right passwords every 2 s, whose last bytes come just before their time is over",
    least: { connections: 5 },
    run: (attacker) =>
      attacker.paced(0.5, async () => {
        const accounts = attacker.target.accounts.slice(0, 40);
        const login = (email: string): Buffer => httpText("POST", "/token", { json: { email, password: PASSWORD } });
        await Promise.all(accounts.map(({ email }) => completeLate(attacker, login(email), LATE_LOGIN_MS)));
      }),
  },
  {
    row: "36e",
    name: "8 connections send bodies that nobody wants, in chunks of one byte and without end",
    least: { "connections closed": 10 },
    run: (attacker) =>
      keepOpen(attacker, 8, async (connection, lane) => {
        const head = lane % 2 === 0 ? `GET /products/${testId(1)}` : "POST /token";
        connection.write(`${head} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n`);
        while (connection.isOpen && !attacker.isOver) {
          connection.write(CHUNKS);
          await attacker.pause(5);
        }
      }),
  },
  {
    row: "36f",
    name: "100 connections send 60 KB in chunks of one byte at the same moment, and come back",
    least: { "connections closed": 50 },
    run: async (attacker) => {
      const head = "POST /token HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
      while (!attacker.isOver) {
        const all = Array.from({ length: 100 }, () => attacker.connect());
        await Promise.all(all.map((connection) => connection.opened()));
        for (const connection of all) connection.write(Buffer.concat([Buffer.from(head), CHUNKS]));
        await Promise.all(all.map((connection) => closedOrOver(attacker, connection)));
        for (const connection of all) connection.destroy();
      }
    },
  },
  {
    row: "36g",
    name: "900 connections send requests with 90 header fields at the same moment, and the next as soon as they have a response",
    least: { "200": 1_000 },
    run: (attacker) => {
      const fields = Object.fromEntries(Array.from({ length: 89 }, (_, n) => [`a${n}`, ""]));
      const request = httpText("GET", `/products/${testId(1)}`, { headers: fields });
      return keepOpen(attacker, 900, async (connection) => {
        while (connection.isOpen && !attacker.isOver) {
          connection.write(request);
          await connection.status(3_000);
        }
      });
    },
  },
  {
    row: "36h",
    name: "256 connections send a list of 7,700 entity tags, all at the same moment, and again after the response",
    least: { "200": 100 },
    run: (attacker) => {
      const request = httpText("GET", `/products/${testId(1)}`, { headers: { "If-None-Match": '""'.repeat(7_700) } });
      return sendAtOnce(attacker, 256, () => request);
    },
  },
  {
    row: "36i",
    name: "64 connections ask for a big page, then pipeline 22 heads of 1,000 fields, and never read",
    least: { connections: 1 },
    prepare: bigCatalogue,
    run: (attacker) => {
      const fields = Array.from({ length: 1_000 }, (_, n) => `a${n}:xx\r\n`).join("");
      const page = `GET /products?limit=100&seller_id=${attacker.ids("seller")[0] ?? ""} HTTP/1.1\r\nHost: a\r\n\r\n`;
      return attacker.flood(64, async () => {
        const connection = attacker.connect({ reads: "none" });
        if (await connection.opened()) {
          for (let n = 0; n < 20; n++) connection.write(page + `GET /x HTTP/1.1\r\nHost: a\r\n${fields}\r\n`.repeat(22));
          await closedOrOver(attacker, connection);
        }
        connection.destroy();
        await attacker.pause(200);
      });
    },
  },
  {
    row: "36c",
    name: "1,500 connections that made a request and keep quiet",
    least: { "200": 50, "connections closed": 20 },
    run: (attacker) =>
      keepOpen(attacker, 1_500, async (connection) => {
        connection.write(httpText("GET", `/products/${testId(1)}`));
        await closedOrOver(attacker, connection);
      }),
  },
];
