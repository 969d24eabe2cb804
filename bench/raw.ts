import { createServer } from "node:http";
import { Pool, types } from "pg";

/*
 * The minimum for a read: Node's HTTP server and one prepared statement, in one process.
 */
types.setTypeParser(types.builtins.INT8, Number);

interface Row {
  id: string;
  name: string;
  description: string | null;
  category: string | null;
  sku: string | null;
  price_cents: number;
  quantity: number;
  seller_id: string;
  created_at: Date;
  updated_at: Date;
}

const { PORT, DATABASE_URL, POOL = "8" } = process.env;
const pool = new Pool({ connectionString: DATABASE_URL, max: Number(POOL), min: Number(POOL), idleTimeoutMillis: 0 });
const text = `select id, name, description, category, sku, price_cents, quantity, seller_id, created_at, updated_at
  from products where id = $1 and archived_at is null`;

createServer((req, res) => {
  const id = /^\/products\/([0-9a-f-]{36})$/.exec(req.url ?? "")?.[1];
  if (req.method !== "GET" || id === undefined) {
    res.writeHead(404).end();
    return;
  }
  pool.query<Row>({ name: "product", text, values: [id] }).then(
    ({ rows: [row] }) => {
      if (row === undefined) {
        res.writeHead(404).end();
        return;
      }
      const { price_cents, ...rest } = row;
      const body = JSON.stringify({ ...rest, price: price_cents / 100 });
      res.writeHead(200, { "Content-Type": "application/json; charset=utf-8", "Content-Length": Buffer.byteLength(body) }).end(body);
    },
    (error: unknown) => {
      console.error(error);
      res.writeHead(500).end();
    },
  );
}).listen(Number(PORT), "127.0.0.1");

process.once("SIGTERM", () => process.exit(0));
