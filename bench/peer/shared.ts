import { connect, type ConfirmChannel } from "amqplib";
import Fastify, { type FastifyInstance } from "fastify";
import type { IncomingHttpHeaders } from "node:http";
import type { Duplex } from "node:stream";
import { Client, types, type QueryResultRow } from "pg";
import { Pool, type Dispatcher } from "undici";

export function env(name: string, fallback?: string): string {
  const value = process.env[name] ?? fallback;
  if (value === undefined) throw new Error(`${name} is not set`);
  return value;
}

/** An error response for clients. */
export class Refusal extends Error {
  constructor(
    readonly statusCode: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

export const fromCents = (cents: number): number => cents / 100;

// --- HTTP ---

export function server(): FastifyInstance {
  const app = Fastify({
    logger: false,
    exposeHeadRoutes: false,
    forceCloseConnections: "idle",
    keepAliveTimeout: 72_000,
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false } },
  });
  app.setErrorHandler<Error & { statusCode?: number; code?: string; validation?: unknown }>((error, _request, reply) => {
    const status = error.validation === undefined ? (error.statusCode ?? 500) : 422;
    if (status === 500) process.stderr.write(`${error.stack ?? error.message}\n`);
    const code = error.validation === undefined ? (error.code ?? "INTERNAL_ERROR") : "VALIDATION_ERROR";
    return reply.code(status).send({ status, code, detail: status === 500 ? "something went wrong" : error.message });
  });
  return app;
}

/** Listens, prints `ready`, and on SIGTERM stops the server first and then what it depends on. */
export async function serve(app: FastifyInstance, stop: () => Promise<unknown>): Promise<void> {
  await app.listen({ port: Number(env("PORT")), host: "127.0.0.1", backlog: 1024 });
  process.once("SIGTERM", () => {
    void app
      .close()
      .then(stop)
      .finally(() => process.exit(0));
  });
  process.stdout.write("ready\n");
}

export interface UpstreamResponse {
  status: number;
  headers: IncomingHttpHeaders;
  body: Buffer;
}

/** A keep-alive pool to another service. Responses are returned as bytes, without a stream or parsing. */
export class Upstream {
  readonly pool: Pool;

  /** @param pipelining requests in flight per connection; undici does not pipeline POST requests */
  constructor(url: string, connections: number, pipelining = 1) {
    this.pool = new Pool(url, {
      connections,
      pipelining,
      keepAliveTimeout: 60_000,
      headersTimeout: 5_000,
      bodyTimeout: 5_000,
      allowH2: false,
    });
  }

  request(method: "GET" | "POST", path: string, headers?: IncomingHttpHeaders, body?: string): Promise<UpstreamResponse> {
    return new Promise<UpstreamResponse>((resolve, reject) => {
      this.pool.dispatch({ method, path, headers: headers ?? null, body: body ?? null, blocking: false }, new Collector(resolve, reject));
    }).catch(() => {
      throw new Refusal(503, "SERVICE_UNAVAILABLE", "a service is unavailable");
    });
  }
}

class Collector implements Dispatcher.DispatchHandler {
  private readonly response: UpstreamResponse = { status: 0, headers: {}, body: Buffer.alloc(0) };

  constructor(
    private readonly resolve: (response: UpstreamResponse) => void,
    private readonly reject: (error: Error) => void,
  ) {}

  onRequestStart(): void {
    // required by undici
  }
  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: IncomingHttpHeaders): void {
    this.response.status = status;
    this.response.headers = headers;
  }
  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.response.body = this.response.body.length === 0 ? chunk : Buffer.concat([this.response.body, chunk]);
  }
  onResponseEnd(): void {
    this.resolve(this.response);
  }
  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.reject(error);
  }
}

/** Sends all writes of one turn of the event loop in one system call. amqplib writes in a `setImmediate`, which takes two `rounds`. */
function gather(stream: Duplex, rounds = 1): void {
  if (stream.writableCorked > 0) return;
  stream.cork();
  setImmediate(release, stream, rounds);
}
function release(stream: Duplex, rounds: number): void {
  if (rounds > 1) setImmediate(release, stream, rounds - 1);
  else stream.uncork();
}

// --- PostgreSQL ---

/** A named statement is parsed and planned once per connection, an unnamed one for each execution. */
export interface Statement {
  name?: string;
  text: string;
}

types.setTypeParser(types.builtins.INT8, Number); // cents stay below 2^53
/** "2026-11-22 18:19:45.73+00" as RFC 3339 in milliseconds, without creating a Date. */
types.setTypeParser(types.builtins.TIMESTAMPTZ, (t) => `${t.slice(0, 10)}T${t.slice(11, 19)}.${t.slice(20, -3).padEnd(3, "0")}Z`);

/** Connections that execute statements in rotation, pipelined and each in its own transaction. Lost connections are reopened. */
export class Database {
  private readonly clients: Client[] = [];
  private next = 0;
  private ended = false;

  constructor(
    private readonly url: string,
    private readonly size: number,
  ) {}

  async start(): Promise<this> {
    await Promise.all(Array.from({ length: this.size }, (_, slot) => this.connect(slot)));
    return this;
  }

  private async connect(slot: number): Promise<void> {
    const client = new Client({
      connectionString: this.url,
      options: "-c timezone=UTC -c enable_seqscan=off -c jit=off", // as the shop does: a plan made for an empty table must not be kept
      pipeline: true,
    });
    client.on("error", () => undefined); // "end" follows
    client.once("end", () => {
      if (!this.ended) setTimeout(() => void this.connect(slot).catch(() => client.emit("end")), 250);
    });
    await client.connect();
    this.clients[slot] = client;
  }

  async query<Row extends QueryResultRow>(statement: Statement, values: unknown[]): Promise<Row[]> {
    this.next = (this.next + 1) % this.size;
    const client = this.clients[this.next];
    if (client === undefined) throw new Error("no connection");
    gather(client.connection.stream);
    return (await client.query<Row>({ ...statement, values })).rows;
  }

  async stop(): Promise<void> {
    this.ended = true;
    await Promise.all(this.clients.map((client) => client.end()));
  }
}

// --- RabbitMQ ---

/** Queues expire ten minutes after their last consumer has gone, in case nothing deletes them. */
const QUEUE = { durable: true, arguments: { "x-expires": 600_000 } };

/** One confirm channel that publishes persistent messages and consumes one queue; reconnects after a loss. */
export class Bus {
  private channel: ConfirmChannel | undefined;
  private stream: Duplex | undefined;
  private ended = false;
  private leave: () => Promise<void> = () => Promise.resolve();

  constructor(
    private readonly url: string,
    private readonly queues: { readonly own: string; readonly to: string },
    private readonly prefetch: number,
    private readonly handle: (message: unknown) => Promise<void>,
  ) {}

  async start(): Promise<void> {
    const connection = await connect(this.url, { noDelay: true });
    connection.on("error", () => undefined); // "close" follows
    connection.once("close", () => {
      this.channel = undefined;
      if (!this.ended) this.rejoin();
    });
    const stream = (connection as unknown as { connection: { stream: Duplex } }).connection.stream; // not in its types
    const channel = await connection.createConfirmChannel();
    channel.on("error", () => undefined);
    channel.once("close", () => void connection.close().catch(() => undefined));
    await channel.assertQueue(this.queues.own, QUEUE);
    await channel.assertQueue(this.queues.to, QUEUE);
    await channel.prefetch(this.prefetch);
    await channel.consume(this.queues.own, (message) => {
      if (message === null) return;
      this.handle(JSON.parse(message.content.toString()))
        .then(() => {
          gather(stream, 2);
          channel.ack(message);
        })
        .catch((error: unknown) => {
          process.stderr.write(`${String(error)}\n`);
          setTimeout(() => this.channel === channel && channel.nack(message), 250);
        });
    });
    this.channel = channel;
    this.stream = stream;
    this.leave = async () => {
      await channel.deleteQueue(this.queues.own);
      await connection.close();
    };
  }

  private rejoin(): void {
    setTimeout(() => void this.start().catch(() => this.rejoin()), 250);
  }

  /** Resolves when the broker has confirmed the message; rejects if it did not, or there is no connection. */
  publish(message: string): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.stream !== undefined) gather(this.stream, 2);
      if (this.channel === undefined) reject(new Error("no broker"));
      else
        this.channel.publish("", this.queues.to, Buffer.from(message), { persistent: true }, (error: unknown) =>
          error === null || error === undefined ? resolve() : reject(new Error("not confirmed")),
        );
    });
  }

  async stop(): Promise<void> {
    this.ended = true;
    await this.leave().catch(() => undefined);
  }
}
