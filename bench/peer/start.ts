import { connect } from "amqplib";
import { spawn, type ChildProcess } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { closeSync, openSync, readFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import path from "node:path";
import { Client } from "pg";

export interface PeerOptions {
  productsDatabaseUrl: string;
  ordersDatabaseUrl: string;
  amqpUrl: string;
  publicKeyPem: string;
  /** A file for the services' stderr; by default it is inherited. */
  log?: string;
}

export interface Peer {
  url: string;
  pids: { gateway: number; products: number; orders: number };
  stop(): Promise<void>;
}

/** Applies the schema to two empty databases and starts the three services on free ports. */
export async function startPeer(options: PeerOptions): Promise<Peer> {
  await applySchema(options.productsDatabaseUrl, "products.sql");
  await applySchema(options.ordersDatabaseUrl, "orders.sql");
  const [gatewayPort, productsPort, ordersPort] = await freePorts();
  const prefix = `peer-${randomUUID()}`;
  const common = { AMQP_URL: options.amqpUrl, QUEUE_PREFIX: prefix };
  const productsUrl = `http://127.0.0.1:${productsPort}`;
  const ordersUrl = `http://127.0.0.1:${ordersPort}`;
  const started: ChildProcess[] = [];
  const run = async (name: string, env: Record<string, string>): Promise<number> => {
    const child = spawnService(name, env, options.log);
    started.unshift(child); // the gateway, started last, stops first
    await ready(name, child);
    return child.pid ?? 0;
  };
  const stop = async (): Promise<void> => {
    for (const child of started) await terminate(child);
    await deleteQueues(options.amqpUrl, [`${prefix}.order.created`, `${prefix}.stock.settled`]);
  };
  try {
    const products = await run("products", { ...common, PORT: String(productsPort), DATABASE_URL: options.productsDatabaseUrl });
    const orders = await run("orders", {
      ...common,
      PORT: String(ordersPort),
      DATABASE_URL: options.ordersDatabaseUrl,
      PRODUCTS_URL: productsUrl,
    });
    const gateway = await run("gateway", {
      PORT: String(gatewayPort),
      PRODUCTS_URL: productsUrl,
      ORDERS_URL: ordersUrl,
      PUBLIC_KEY: options.publicKeyPem,
    });
    return { url: `http://127.0.0.1:${gatewayPort}`, pids: { gateway, products, orders }, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Starts one of the three services as a process. */
export function spawnService(name: string, env: Record<string, string>, log?: string): ChildProcess {
  const out = log === undefined ? "inherit" : openSync(log, "a");
  const child = spawn(process.execPath, ["--import", "tsx", path.join(__dirname, `${name}.ts`)], {
    cwd: path.join(__dirname, "../.."),
    env: { ...process.env, NODE_ENV: "production", ...env },
    stdio: ["ignore", "pipe", out],
  });
  if (typeof out === "number") closeSync(out);
  return child;
}

async function ready(name: string, child: ChildProcess): Promise<void> {
  for await (const chunk of child.stdout ?? []) if (String(chunk).includes("ready")) return;
  throw new Error(`${name} exited before it was ready`);
}

async function terminate(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, "exit");
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), 10_000);
  await exit;
  clearTimeout(timer);
}

/** Deletes queues that a killed service has left behind. */
async function deleteQueues(url: string, queues: string[]): Promise<void> {
  const connection = await connect(url);
  const channel = await connection.createChannel();
  for (const queue of queues) await channel.deleteQueue(queue);
  await connection.close();
}

/** Applies a schema, and `new_id()`, which generates the ids. */
async function applySchema(url: string, file: string): Promise<void> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    for (const name of ["new_id.sql", file]) await client.query(readFileSync(path.join(__dirname, name), "utf8"));
  } finally {
    await client.end();
  }
}

/** Three ports that are free now. */
async function freePorts(): Promise<[number, number, number]> {
  const servers = [createServer(), createServer(), createServer()] as const;
  for (const server of servers) await once(server.listen(0, "127.0.0.1"), "listening");
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => once(server.close(), "close")));
  const [a = 0, b = 0, c = 0] = ports;
  return [a, b, c];
}
