import { createServer } from "node:http";
import { testId } from "../testkit/ids";

/*
 * Node's HTTP server alone: it always returns the same product. No single-process gateway can be faster than this.
 */
const body = JSON.stringify({
  id: testId(1),
  name: "Product 1 kind01",
  description: "A product that is seeded for measuring, number 1",
  category: "bench",
  sku: null,
  price: 1.01,
  quantity: 100_000_000,
  seller_id: testId(1),
  version: 1,
  created_at: "2026-01-01T00:00:00.000Z",
  updated_at: "2026-01-01T00:00:00.000Z",
});

createServer((_req, res) => {
  res.writeHead(200, { "Content-Type": "application/json; charset=utf-8", "Content-Length": Buffer.byteLength(body) }).end(body);
}).listen(Number(process.env["PORT"]), "127.0.0.1");

process.once("SIGTERM", () => process.exit(0));
