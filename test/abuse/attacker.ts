import { connect, type Socket } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { Agent, request } from "undici";
import { seededRandom } from "../../testkit/seeded-random";
import { ATTACKER_ADDRESS, type Account } from "./accounts";
import type { Prepared } from "./attack";

/** An attack's parameters, and what the attacker knows. */
export interface Target {
  row: string;
  url: string;
  seconds: number;
  seed: number;
  accounts: readonly Account[];
  /** E-mail addresses of the victims. */
  victims: readonly string[];
  prepared: Prepared;
}

export interface Message {
  token?: string | undefined;
  headers?: Readonly<Record<string, string>>;
  json?: unknown;
  raw?: string | Buffer;
}

type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE";

const GIVE_UP_MS = 15_000;
/** Pause after a refused connection, so that the attacker doesn't spin. */
const AFTER_NOTHING_MS = 5;

/** The building blocks of attacks: connections from one address, loops, and counts of the responses. */
export class Attacker {
  readonly counts: Record<string, number> = {};
  readonly random: () => number;
  /** Number of status lines received on raw connections. */
  responses = 0;
  private readonly until: number;
  private readonly agents = new Map<string, Agent>();
  private readonly connections = new Set<RawConnection>();

  constructor(readonly target: Target) {
    this.random = seededRandom(target.seed);
    this.until = performance.now() + target.seconds * 1_000;
  }

  get isOver(): boolean {
    return performance.now() >= this.until;
  }

  get leftMs(): number {
    return Math.max(0, this.until - performance.now());
  }

  count(what: string | number, times = 1): void {
    this.counts[what] = (this.counts[what] ?? 0) + times;
  }

  pick<T>(from: readonly T[]): T {
    const one = from[Math.floor(this.random() * from.length)];
    if (one === undefined) throw new Error("the list is empty");
    return one;
  }

  get token(): string {
    return this.pick(this.target.accounts).token;
  }

  ids(name: string): readonly string[] {
    return this.target.prepared[name] ?? [];
  }

  /** Waits, at most until the end of the attack. */
  pause(ms: number): Promise<void> {
    return pause(Math.min(ms, this.leftMs));
  }

  /** Runs `concurrency` loops of work until the attack is over. */
  async flood(concurrency: number, work: (lane: number) => Promise<unknown>): Promise<void> {
    const lane = async (_: unknown, n: number): Promise<void> => {
      while (!this.isOver) await work(n);
    };
    await Promise.all(Array.from({ length: concurrency }, lane));
  }

  /** Starts work at a steady rate, even if earlier work is unfinished. */
  async paced(perSecond: number, work: () => Promise<unknown>): Promise<void> {
    const inFlight = new Set<Promise<unknown>>();
    while (!this.isOver) {
      const done = work().finally(() => inFlight.delete(done));
      inFlight.add(done);
      await this.pause(1_000 / perSecond);
    }
    await Promise.all(inFlight);
  }

  /** Sends a request and reads the response. @returns its status; 0 if there was no response */
  async send(method: Method, path: string, message: Message = {}, address = ATTACKER_ADDRESS): Promise<number> {
    const response = await this.request(method, path, message, address);
    await response?.body.dump({ limit: Number.MAX_SAFE_INTEGER }).catch(() => undefined); // an incomplete response has been counted already
    return response?.statusCode ?? 0;
  }

  /** Sends a POST. @returns the id of the created resource; undefined if nothing was created */
  async create(path: string, message: Message): Promise<string | undefined> {
    const response = await this.request("POST", path, message, ATTACKER_ADDRESS);
    const text = (await response?.body.text().catch(() => "")) ?? "";
    return response?.statusCode === 201 ? /"id":"([^"]+)"/.exec(text)?.[1] : undefined;
  }

  private async request(method: Method, path: string, { token, headers = {}, json, raw }: Message, address: string) {
    try {
      const response = await request(this.target.url + path, {
        dispatcher: this.agent(address),
        method,
        headers: {
          ...((json !== undefined || raw !== undefined) && { "content-type": "application/json" }),
          ...(token !== undefined && { authorization: `Bearer ${token}` }),
          ...headers,
        },
        body: raw ?? (json === undefined ? null : JSON.stringify(json)),
        signal: AbortSignal.timeout(GIVE_UP_MS),
      });
      this.count(response.statusCode);
      return response;
    } catch {
      this.count("no response");
      await pause(AFTER_NOTHING_MS);
      return undefined;
    }
  }

  private agent(localAddress: string): Agent {
    const agent = this.agents.get(localAddress) ?? new Agent({ localAddress, connect: { timeout: GIVE_UP_MS } });
    this.agents.set(localAddress, agent);
    return agent;
  }

  /** Opens a raw connection that can send any bytes. */
  connect(options: ConnectionOptions = {}): RawConnection {
    const connection = new RawConnection(this, options);
    this.connections.add(connection);
    void connection.closed().then(() => this.connections.delete(connection));
    return connection;
  }

  /** Closes all connections. @returns all counts, including those of raw connections */
  async close(): Promise<Record<string, number>> {
    for (const connection of this.connections) connection.destroy();
    await Promise.all([...this.agents.values()].map((agent) => agent.destroy()));
    return { ...this.counts };
  }
}

interface ConnectionOptions {
  /** How much is read: everything, nothing, or only the first chunk. */
  reads?: "all" | "none" | "beginning";
}

const STATUS = /HTTP\/1\.1 (\d{3})/g;
/** Characters to keep from the last chunk, since a status line may be split across two. */
const TAIL = "HTTP/1.1 20".length;

/** One TCP connection from the attacker's address. */
export class RawConnection {
  private readonly socket: Socket;
  private tail = "";
  private readonly waiting: ((status: string) => void)[] = [];
  isOpen = false;
  /** Number of status lines received. */
  responses = 0;
  private readonly closing: Promise<unknown>;
  private isOurs = false;

  constructor(attacker: Attacker, { reads = "all" }: ConnectionOptions) {
    const { hostname, port } = new URL(attacker.target.url);
    this.socket = connect({ host: hostname, port: Number(port), localAddress: ATTACKER_ADDRESS, noDelay: true });
    this.socket.on("error", () => undefined); // "close" follows
    this.closing = new Promise((resolve) => {
      this.socket.once("close", () => {
        if (!this.isOurs) attacker.count(this.isOpen ? "connections closed" : "connections refused");
        this.isOpen = false;
        resolve(undefined);
      });
    });
    this.socket.once("connect", () => {
      attacker.count("connections");
      this.isOpen = true;
    });
    if (reads === "none") this.socket.pause();
    else
      this.socket.on("data", (chunk: Buffer) => {
        const text = this.tail + chunk.toString("latin1");
        for (const [, status = ""] of text.matchAll(STATUS)) {
          attacker.count(status);
          attacker.responses++;
          this.responses++;
          for (const resolve of this.waiting.splice(0)) resolve(status);
        }
        this.tail = text.slice(-TAIL);
        if (reads === "beginning") this.socket.pause();
      });
  }

  /** Resolves when the connection is open or has failed. @returns whether it is open */
  async opened(): Promise<boolean> {
    if (!this.isOpen && this.socket.connecting) await new Promise((resolve) => this.socket.once("connect", resolve).once("close", resolve));
    return this.isOpen;
  }

  /** Resolves when either side has closed it. */
  closed(): Promise<unknown> {
    return this.closing;
  }

  /** Waits for the status of the next response; undefined if the connection is closed instead, or after `ms`. */
  async status(ms: number): Promise<string | undefined> {
    const next = new Promise<string>((resolve) => void this.waiting.push(resolve));
    const abort = new AbortController();
    const status = await Promise.race([
      next,
      this.closing.then(() => undefined),
      pause(ms, undefined, { signal: abort.signal }).catch(() => undefined),
    ]);
    abort.abort();
    return status;
  }

  write(bytes: string | Buffer): void {
    if (!this.socket.destroyed) this.socket.write(bytes);
  }

  /** Closes at once with unread data, which the other side sees as a reset. */
  destroy(): void {
    this.isOurs = true;
    this.socket.destroy();
  }
}

/** A request as bytes. Content-Length is set, unless `headers` override it. */
export function httpText(method: string, path: string, { token, headers = {}, json, raw }: Message = {}): Buffer {
  const body = Buffer.from(raw ?? (json === undefined ? "" : JSON.stringify(json)));
  const all = {
    Host: "shop.test",
    ...(token !== undefined && { Authorization: `Bearer ${token}` }),
    ...(body.length > 0 && { "Content-Type": "application/json", "Content-Length": String(body.length) }),
    ...headers,
  };
  const head = Object.entries(all)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join("");
  return Buffer.concat([Buffer.from(`${method} ${path} HTTP/1.1\r\n${head}\r\n`), body]);
}
