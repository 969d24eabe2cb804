import { Client, type ClientConfig } from "pg";
import { reasonOf } from "../broker/errors";
import { serversOf } from "./database-url";
import { HotStandby, openSession } from "./session";
import { sqlState } from "./sql-state";

/** Milliseconds for each of the two steps of a look: less than a pool waits for a connection. A server that was cut off says nothing. */
const LOOK_MS = 700;

type Place = Pick<Client, "host" | "port">;

/**
 * The class of the connections to a URL. Where that names several servers, each new connection is made to the one that takes writes now. All are
 * asked at once. A server that stops taking writes later on says so by an error that ends the connection
 * (sql-state.ts), and so the pool follows a failover.
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

/** Who asks while others do gets their answer. */
function finder(servers: readonly string[]): () => Promise<Place> {
  let finding: Promise<Place> | undefined;
  return () =>
    (finding ??= findPrimary(servers).finally(() => {
      finding = undefined;
    }));
}

/**
 * The first server that takes writes; or a primary that is read-only, which serves reads, where all other servers are its standbys. One that
 * can't be reached may have been promoted.
 * @throws what a server says that can be reached, such as that there is no such database; else that none takes writes
 */
async function findPrimary(servers: readonly string[]): Promise<Place> {
  try {
    return await Promise.any(servers.map(look));
  } catch (error) {
    const reasons: readonly unknown[] = error instanceof AggregateError ? error.errors : [error];
    const readOnly = reasons.find((reason) => reason instanceof ReadOnlyPrimary);
    const standbys = reasons.filter((reason) => reason instanceof HotStandby);
    if (readOnly !== undefined && standbys.length === servers.length - 1) return readOnly.place;
    const said = reasons.find(
      (reason): reason is Error => reason instanceof Error && !(reason instanceof HotStandby) && sqlState(reason) !== undefined,
    );
    const all = reasons.map((reason, n) => `${new URL(servers[n] ?? "").host}: ${reasonOf(reason)}`).join(", ");
    throw said ?? new Error(`no server takes writes (${all})`);
  }
}

class ReadOnlyPrimary extends Error {
  constructor(readonly place: Place) {
    super("the server is read-only");
  }
}

/** Where a server is that takes writes. @throws where it does not, or does not respond in time */
async function look(url: string): Promise<Place> {
  const config: ClientConfig = { connectionString: url, connectionTimeoutMillis: LOOK_MS, query_timeout: LOOK_MS };
  const client = new Client(config);
  client.on("error", () => undefined); // fails the statement as well
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
