import { createServer, request, type IncomingMessage, type ServerResponse } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";

interface Gateway {
  port: number;
  isReady(): Promise<boolean>;
}

/** Marks responses of the balancer itself, which say nothing about the shop. */
export const BALANCER = "x-balancer";
const CHECK_MS = 100;

/**
 * Shares requests between the gateways that are ready. If one refuses the connection, it has seen nothing of the request,
 * so the next one gets it. A later failure is a 502, since the request may have been processed.
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
    localAddress: req.socket.remoteAddress, // keep the client's address
    port: gateway.port,
    method,
    path: url,
    headers: { ...headers, connection: "close" },
    agent: false,
  });
  onward.on("response", (response) => {
    res.writeHead(response.statusCode ?? 502, response.headers);
    response.pipe(res);
    response.on("error", () => res.destroy());
  });
  onward.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "ECONNREFUSED") forward(req, res, body, others);
    else fail(502, error.code ?? error.message);
  });
  res.on("close", () => onward.destroy());
  onward.end(body);
}
