import { createServer, request, type IncomingMessage, type ServerResponse } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";

interface Gateway {
  port: number;
  isReady(): Promise<boolean>;
}

/** Answers of the balancer itself bear this header: they say nothing about the shop. */
export const BALANCER = "x-balancer";
const CHECK_MS = 100;

/**
 * Shares requests between the gateways that say they are ready. One that refuses the connection has got nothing of the
 * request: the next one is asked. What breaks off later is a 502, since nobody knows how far it got.
 */
export async function startBalancer(gateways: () => Gateway[]): Promise<{ url: string; close: () => void }> {
  let ready: Gateway[] = [];
  let turn = 0;
  const check = async (): Promise<void> => {
    const all = gateways();
    const states = await Promise.all(all.map((gateway) => gateway.isReady().catch(() => false)));
    ready = all.filter((_, i) => states[i]);
  };
  const timer = setInterval(() => void check(), CHECK_MS);

  const server = createServer((req, res) => {
    const chunks: Buffer[] = [];
    req.on("data", (chunk: Buffer) => chunks.push(chunk));
    req.on("end", () => {
      const order = ready.map((_, i) => ready[(turn + i) % ready.length]).flatMap((gateway) => gateway ?? []);
      turn++;
      forward(req, res, Buffer.concat(chunks), order);
    });
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    url,
    close: () => {
      clearInterval(timer);
      server.closeAllConnections();
      server.close();
    },
  };
}

function forward(req: IncomingMessage, res: ServerResponse, body: Buffer, [gateway, ...others]: Gateway[]): void {
  const fail = (status: number, why: string): void => {
    if (res.headersSent) res.destroy();
    else res.writeHead(status, { [BALANCER]: why }).end();
  };
  if (gateway === undefined) {
    fail(502, "no gateway is ready");
    return;
  }
  const { method, url, headers } = req;
  const onward = request({
    host: "127.0.0.1",
    localAddress: req.socket.remoteAddress, // each client's own
    port: gateway.port,
    method,
    path: url,
    headers: { ...headers, connection: "close" },
    agent: false,
  });
  onward.on("response", (answer) => {
    res.writeHead(answer.statusCode ?? 502, answer.headers);
    answer.pipe(res);
    answer.on("error", () => res.destroy());
  });
  onward.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "ECONNREFUSED") forward(req, res, body, others);
    else fail(502, error.code ?? error.message);
  });
  res.on("close", () => onward.destroy());
  onward.end(body);
}
