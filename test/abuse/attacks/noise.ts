import { testId } from "../../../testkit/ids";
import type { Attack } from "../attack";
import { httpText, type Attacker } from "../attacker";

/** Requests that are refused in different ways, or can't be parsed at all. */
const NOISE: readonly ((attacker: Attacker) => Buffer)[] = [
  () => Buffer.from("nonsense\r\n\r\n"),
  () => Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03]), // a TLS ClientHello
  () => httpText("GET", "/products/%zz"),
  () => httpText("GET", `/orders/${2 ** 63}`, { token: "e30.e30.e30" }),
  () => httpText("GET", "/products?sort=drop&cursor=%00"),
  () => httpText("POST", "/orders", { json: { items: "none" } }),
  () => httpText("POST", "/orders", { raw: "{" }),
  () => httpText("POST", "/token", { raw: "x".repeat(110_000) }),
  () => httpText("DELETE", "/token"),
  () => httpText("GET", "/", { headers: { "X-Request-Id": "x".repeat(3_000) } }),
  () => httpText("GET", "/", { headers: { "X-Big": "x".repeat(20_000) } }),
  () => httpText("POST", "/token", { raw: "{}", headers: { "Transfer-Encoding": "chunked" } }),
  () => httpText("POST", "/token", { raw: "{}", headers: { "Content-Type": "text/plain" } }),
  () => Buffer.concat([httpText("GET", "/products?limit=100"), Buffer.from("\u0000\u0001garbage\r\n\r\n")]),
  // the same key with another body
  (attacker) => {
    const json = { items: [{ product_id: testId(1), quantity: 1 + Math.floor(9 * attacker.random()) }] };
    return httpText("POST", "/orders", { token: attacker.target.accounts[8]?.token, headers: { "Idempotency-Key": "reused" }, json });
  },
  (attacker) => httpText("GET", `/${attacker.random()}`, { headers: { Origin: `https://${attacker.random()}.test` } }),
  (attacker) => httpText("POST", "/orders", { token: attacker.token, json: { items: [{ product_id: testId(1), quantity: 0 }] } }),
];

const send = (attacker: Attacker): Promise<void> =>
  attacker.flood(16, async () => {
    const connection = attacker.connect();
    if (await connection.opened()) {
      connection.write(attacker.pick(NOISE)(attacker));
      attacker.count("sent");
      await connection.status(1_000);
    }
    connection.destroy();
  });

const PIPELINED = 200;
/** Allowance for log lines that don't belong to a request: of unreadable connections, and the shop's own. */
const MORE_LINES = 200;
/** Allowance for new metric lines, of requests with labels not seen before. */
const MORE_METRICS = 400;

export const noise: readonly Attack[] = [
  {
    row: "48",
    name: "16 at a time: what can't be read, and everything that is refused",
    least: { sent: 50, "400": 10 },
    quick: ["nodes"],
    run: send,
    expect: ({ counts, victims, lines }) => {
      const most = 2 * ((counts["sent"] ?? 0) + victims) + MORE_LINES;
      return lines.length > most
        ? [`${lines.length} lines were logged for ${counts["sent"] ?? 0} requests of the attacker and ${victims} others`]
        : [];
    },
  },
  {
    row: "52",
    name: "64 at a time: ever new paths, methods, origins, agents and ids",
    least: { "401": 20, "404": 20 },
    run: (attacker) =>
      attacker.flood(64, () => {
        const word = Math.floor(attacker.random() * 1e9).toString(36);
        const headers = { "user-agent": word, "x-request-id": word, origin: `https://${word}.test` };
        const path = attacker.pick([`/${word}`, `/products/${word}`, `/orders/${word}/${word}`, `/products?${word}=${word}`]);
        return attacker.send(attacker.pick(["GET", "POST", "PATCH", "DELETE"]), path, { headers });
      }),
    expect: ({ before, after }) => {
      const more = after.metricLines - before.metricLines;
      return more > MORE_METRICS ? [`the metrics grew by ${more} lines`] : [];
    },
  },
  {
    row: "52b",
    name: `10 connections pipeline ${PIPELINED} requests for nothing, again after each response`,
    least: { "404": 100 },
    run: (attacker) =>
      attacker.flood(10, async () => {
        const connection = attacker.connect();
        const all = Buffer.concat(Array.from({ length: PIPELINED }, () => httpText("GET", "/nothing")));
        if (await connection.opened()) connection.write(all);
        while (connection.isOpen && !attacker.isOver && connection.responses < PIPELINED) await attacker.pause(5);
        connection.destroy();
      }),
  },
  {
    row: "52d",
    name: "100 connections send 64 KiB of the shortest requests at the same moment, and come back",
    least: { "404": 100 },
    run: async (attacker) => {
      const all = Buffer.from("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2_340));
      while (!attacker.isOver) {
        const connections = Array.from({ length: 100 }, () => attacker.connect());
        await Promise.all(connections.map((connection) => connection.opened()));
        for (const connection of connections) connection.write(all);
        await Promise.race([Promise.all(connections.map((connection) => connection.closed())), attacker.pause(1_000)]);
        for (const connection of connections) connection.destroy();
      }
    },
  },
  {
    row: "52c",
    name: "64 at a time: queries of 16 KiB full of escapes that are no UTF-8",
    least: { "400": 20 },
    run: (attacker) => attacker.flood(64, () => attacker.send("GET", `/nothing?${"%ff&".repeat(3_900)}`)),
  },
];
