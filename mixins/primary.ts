import { Client, type ClientConfig } from "pg";
import { reasonOf } from "../broker/errors";
import { serversOf } from "./database-url";
import { HotStandby, openSession } from "./session";
import { sqlState } from "./sql-state";

/** Milliseconds to connect, and to query: less than a pool waits for a connection. A partitioned server does not respond at all. */
const PROBE_MS = 700;

type Place = Pick<Client, "host" | "port">;

/**
 * The class of the connections to a URL. If the URL names several servers, each new connection queries all of them in parallel and goes to
 * the one that accepts writes now. When a server stops accepting writes later, the error ends the connection (sql-state.ts), and so the pool
 * follows a failover.
 */
export function clientOf(url: string): typeof Client {
  const servers = serversOf(url);
  if (servers.length === 1) return Client;
  const find = finder(servers);
  return class extends Client {
    override connect(): Promise<Client>;
    override connect(callback: (error: Error) => void): void;
    override connect(callback?: (error: Error) => void): Promise<Client> | undefined {
      const found = find().then((place) => {
        Object.assign(this, place);
      });
      if (callback === undefined) return found.then(() => super.connect());
      found.then(() => {
        super.connect(callback);
      }, callback);
      return undefined;
    }
  };
}

/** Concurrent calls share one search. */
function finder(servers: readonly string[]): () => Promise<Place> {
  let finding: Promise<Place> | undefined;
  return () =>
    (finding ??= findPrimary(servers).finally(() => {
      finding = undefined;
    }));
}

/**
 * The first server that accepts writes. Otherwise a primary that is read-only, to serve reads, but only if all other servers are hot
 * standbys: one that can't be reached may have been promoted.
 * @throws the error of a reachable server, such as that the database does not exist; else that no server accepts writes
 */
async function findPrimary(servers: readonly string[]): Promise<Place> {
  try {
    return await Promise.any(servers.map(probe));
  } catch (error) {
    const reasons: readonly unknown[] = error instanceof AggregateError ? error.errors : [error];
    const readOnly = reasons.find((reason) => reason instanceof ReadOnlyPrimary);
    const standbys = reasons.filter((reason) => reason instanceof HotStandby);
    if (readOnly !== undefined && standbys.length === servers.length - 1) return readOnly.place;
    const reason = reasons.find(
      (reason): reason is Error => reason instanceof Error && !(reason instanceof HotStandby) && sqlState(reason) !== undefined,
    );
    const all = reasons.map((reason, n) => `${new URL(servers[n] ?? "").host}: ${reasonOf(reason)}`).join(", ");
    throw reason ?? new Error(`no server accepts writes (${all})`);
  }
}

class ReadOnlyPrimary extends Error {
  constructor(readonly place: Place) {
    super("the server is read-only");
  }
}

/** The host and port of a server that accepts writes. @throws if it does not, or does not respond in time */
async function probe(url: string): Promise<Place> {
  const config: ClientConfig = { connectionString: url, connectionTimeoutMillis: PROBE_MS, query_timeout: PROBE_MS };
  const client = new Client(config);
  client.on("error", () => undefined); // the statement fails as well
  try {
    await client.connect();
    const { isReadOnly } = await openSession(client, {});
    const place = { host: client.host, port: client.port };
    if (isReadOnly) throw new ReadOnlyPrimary(place);
    return place;
  } finally {
    client.end().catch(() => undefined /* it was never open, or is lost already */);
  }
}
