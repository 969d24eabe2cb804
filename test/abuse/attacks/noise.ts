import { testId } from "../../../testkit/ids";
import type { Attack } from "../attack";
import { httpText, type Tools } from "../tools";

/** Requests that are refused in different ways, or can't be parsed at all. */
const NOISE: readonly ((tools: Tools) => Buffer)[] = [
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
  (tools) => {
    const json = { items: [{ product_id: testId(1), quantity: 1 + Math.floor(9 * tools.random()) }] };
    return httpText("POST", "/orders", { token: tools.target.accounts[8]?.token, headers: { "Idempotency-Key": "reused" }, json });
  },
  (tools) => httpText("GET", `/${tools.random()}`, { headers: { Origin: `https://${tools.random()}.test` } }),
  (tools) => httpText("POST", "/orders", { token: tools.token, json: { items: [{ product_id: testId(1), quantity: 0 }] } }),
];

const send = (tools: Tools): Promise<void> =>
  tools.flood(16, async () => {
    const wire = tools.wire();
    if (await wire.opened()) {
      wire.write(tools.pick(NOISE)(tools));
      tools.count("sent");
      await wire.status(1_000);
    }
    wire.destroy();
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
    run: (tools) =>
      tools.flood(64, () => {
        const word = Math.floor(tools.random() * 1e9).toString(36);
        const headers = { "user-agent": word, "x-request-id": word, origin: `https://${word}.test` };
        const path = tools.pick([`/${word}`, `/products/${word}`, `/orders/${word}/${word}`, `/products?${word}=${word}`]);
        return tools.send(tools.pick(["GET", "POST", "PATCH", "DELETE"]), path, { headers });
      }),
    expect: ({ before, after }) => {
      const more = after.metricLines - before.metricLines;
      return more > MORE_METRICS ? [`the metrics grew by ${more} lines`] : [];
    },
  },
  {
    row: "52b",
    name: `10 connections pipeline ${PIPELINED} requests for nothing, again as soon as they are answered`,
    least: { "404": 100 },
    run: (tools) =>
      tools.flood(10, async () => {
        const wire = tools.wire();
        const all = Buffer.concat(Array.from({ length: PIPELINED }, () => httpText("GET", "/nothing")));
        if (await wire.opened()) wire.write(all);
        while (wire.isOpen && !tools.isOver && wire.responses < PIPELINED) await tools.pause(5);
        wire.destroy();
      }),
  },
  {
    row: "52d",
    name: "100 connections send 64 KiB of the shortest requests at the same moment, and come back",
    least: { "404": 100 },
    run: async (tools) => {
      const all = Buffer.from("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2_340));
      while (!tools.isOver) {
        const wires = Array.from({ length: 100 }, () => tools.wire());
        await Promise.all(wires.map((wire) => wire.opened()));
        for (const wire of wires) wire.write(all);
        await Promise.race([Promise.all(wires.map((wire) => wire.closed())), tools.pause(1_000)]);
        for (const wire of wires) wire.destroy();
      }
    },
  },
  {
    row: "52c",
    name: "64 at a time: queries of 16 KiB full of escapes that are no UTF-8",
    least: { "400": 20 },
    run: (tools) => tools.flood(64, () => tools.send("GET", `/nothing?${"%ff&".repeat(3_900)}`)),
  },
];
