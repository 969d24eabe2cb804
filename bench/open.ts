import { connect, type Socket } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { quantiles } from "../testkit/statistics";
import type { OpenJob, OpenResult, Request, Second } from "./load";

/*
 * An open loop that uses as little CPU as possible, since it shares the cores with the shop: requests are prepared bytes, and of a response it
 * reads only the status, the length and, for an order, the id.
 */
const TICK_MS = 2;
const RESPONSE_MS = 5_000;
/** A server may close a connection that was idle for five seconds, so connections are reused only for a shorter time. */
const IDLE_MS = 4_000;

/** Several addresses, since the shop gives one address only a share of its capacity. */
const ADDRESSES = [2, 3, 4, 5, 6, 7, 8, 9].map((n) => `127.0.0.${n}`);

interface Pending {
  due: number;
  sent: number;
}

/** The events of one second. */
class Tally {
  due = 0;
  unsent = 0;
  other = 0;
  broken = 0;
  readonly ok: number[] = [];
  readonly refused: number[] = [];

  sum(): Second {
    const [okP50 = 0, okP99 = 0] = quantiles(this.ok, [0.5, 0.99]);
    const [refusedP99 = 0] = quantiles(this.refused, [0.99]);
    const { due, unsent, other, broken, ok, refused } = this;
    return { due, unsent, ok: ok.length, refused: refused.length, other, broken, okP50, okP99, refusedP99 };
  }
}

export async function openLoop({ url, phases, connections, requests }: OpenJob): Promise<OpenResult> {
  const { hostname, port, host } = new URL(url);
  const prepared = requests.map((request) => bytesOf(request, host));
  const failures: Record<string, number> = {};
  const orders: [string, number][] = [];
  const tallies: Tally[] = [];
  const free = new Queue();
  const opened: Connection[] = [];
  const epoch = Date.now() - performance.now();
  const since = performance.now();
  const tally = (at: number): Tally => (tallies[Math.floor((at - since) / 1_000)] ??= new Tally());

  const onResponse = (connection: Connection, { due, sent }: Pending, status: number, id: string | undefined): void => {
    const now = performance.now();
    const second = tally(now);
    if (status >= 200 && status < 300) {
      second.ok.push(now - due);
      if (id !== undefined) orders.push([id, epoch + due]);
    } else {
      if (status === 503 || status === 429) second.refused.push(now - sent);
      else if (status === 0) second.broken++;
      else second.other++;
      const what = status === 0 ? "no response" : String(status);
      failures[what] = (failures[what] ?? 0) + 1;
    }
    free.push(connection);
  };
  for (let n = 0; n < connections; n++) {
    const address = ADDRESSES[n % ADDRESSES.length] ?? "";
    opened.push(new Connection(hostname, Number(port), address, onResponse));
  }
  for (const connection of opened) free.push(connection);

  let due = since;
  for (const { rate, seconds } of phases) {
    const end = due + seconds * 1_000;
    while (due < end) {
      for (const now = performance.now(); due <= now && due < end; due += 1_000 / rate) {
        tally(due).due++;
        const connection = free.take();
        if (connection === undefined) tally(due).unsent++;
        else connection.send(prepared[Math.floor(Math.random() * prepared.length)] ?? Buffer.alloc(0), due);
      }
      const before = performance.now() - RESPONSE_MS;
      for (const connection of opened) connection.closeIfOverdue(before);
      await pause(TICK_MS);
    }
    due = end;
  }
  for (let n = 0; n < RESPONSE_MS / 20 && free.length < opened.length; n++) await pause(20);
  for (const connection of opened) connection.close();
  const sums = Array.from({ length: Math.floor((due - since) / 1_000) }, (_, n) => (tallies[n] ?? new Tally()).sum());
  return { seconds: sums, orders, failures };
}

/** First in, first out, so that all connections are opened before an overload and none stays idle until the server closes it. */
class Queue {
  private items: Connection[] = [];
  private head = 0;

  get length(): number {
    return this.items.length - this.head;
  }

  push(connection: Connection): void {
    this.items.push(connection);
  }

  take(): Connection | undefined {
    if (this.head > 10_000) {
      this.items = this.items.slice(this.head);
      this.head = 0;
    }
    return this.head < this.items.length ? this.items[this.head++] : undefined;
  }
}

function bytesOf({ method, path, headers = {}, body }: Request, host: string): Buffer {
  const all = { Host: host, ...headers, ...(body !== undefined && { "Content-Length": Buffer.byteLength(body) }) };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.from(`${method} ${path} HTTP/1.1\r\n${lines.join("")}\r\n${body ?? ""}`);
}

type OnResponse = (connection: Connection, pending: Pending, status: number, id: string | undefined) => void;

/** One connection, with one request in flight at a time. */
class Connection {
  private socket: Socket | undefined;
  private pending: Pending | undefined;
  private text = "";
  private used = 0;

  constructor(
    private readonly host: string,
    private readonly port: number,
    private readonly localAddress: string,
    private readonly onResponse: OnResponse,
  ) {}

  send(bytes: Buffer, due: number): void {
    const now = performance.now();
    if (now - this.used > IDLE_MS) this.close();
    this.used = now;
    this.pending = { due, sent: now };
    this.text = "";
    this.socket ??= this.open();
    this.socket.write(bytes);
  }

  closeIfOverdue(before: number): void {
    if (this.pending !== undefined && this.pending.sent < before) this.close();
  }

  close(): void {
    this.socket?.destroy();
    this.drop();
  }

  private open(): Socket {
    const socket = connect({ host: this.host, port: this.port, localAddress: this.localAddress, noDelay: true });
    socket.setEncoding("latin1");
    socket.on("data", (chunk: string) => {
      this.read(chunk);
    });
    socket.on("error", () => undefined); // "close" follows
    socket.on("close", () => {
      if (this.socket === socket) this.drop();
    });
    return socket;
  }

  private drop(): void {
    this.socket = undefined;
    this.finish(0);
  }

  private read(chunk: string): void {
    this.text += chunk;
    const head = this.text.indexOf("\r\n\r\n");
    if (head < 0) return;
    const length = Number(/\r\ncontent-length: *(\d+)/i.exec(this.text)?.[1] ?? 0);
    if (this.text.length < head + 4 + length) return;
    const status = Number(this.text.slice(9, 12));
    if (/\r\nconnection: *close/i.test(this.text.slice(0, head))) {
      this.socket?.destroy();
      this.socket = undefined;
    }
    this.finish(status, status === 201 ? /"id":"([^"]+)"/.exec(this.text.slice(head))?.[1] : undefined);
  }

  private finish(status: number, id?: string): void {
    const { pending } = this;
    this.pending = undefined;
    if (pending !== undefined) this.onResponse(this, pending, status, id);
  }
}
