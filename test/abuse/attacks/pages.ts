import type { Attack } from "../attack";
import { httpText, type Attacker, type RawConnection } from "../attacker";
import { bigCatalogue } from "../data";

const PIPELINED = 300;
const PROBE_MS = 1_000;

/** Requests for different pages, so that no two can share a response. */
function bigPages(attacker: Attacker, count: number): Buffer {
  const [seller = ""] = attacker.ids("seller");
  const offset = Math.floor(attacker.random() * 500);
  const page = (_: unknown, n: number): Buffer =>
    httpText("GET", `/products?limit=100&seller_id=${seller}&min_price=${(offset + n + 1) / 100}`);
  return Buffer.concat(Array.from({ length: count }, page));
}

/** Probes the connection by writing, since a client that reads nothing doesn't notice that it was closed. */
async function hold(attacker: Attacker, connection: RawConnection): Promise<void> {
  while (connection.isOpen && !attacker.isOver) {
    await attacker.pause(PROBE_MS);
    connection.write("\r\n"); // RFC 9112, 2.2: ignored before a request
  }
}

/** Maximum time in seconds for sending a page of 256 KiB, including the interval of the gateway's check. */
const CUT_SECONDS = 56;
const HELD = 2;

export const pages: readonly Attack[] = [
  {
    row: "35a",
    name: "5 connections pipeline 300 big pages each and never read; cut off, they come back",
    least: { connections: 0.1 },
    quick: ["one", "nodes"],
    prepare: bigCatalogue,
    run: (attacker) =>
      attacker.flood(5, async () => {
        const connection = attacker.connect({ reads: "none" });
        if (await connection.opened()) connection.write(bigPages(attacker, PIPELINED));
        await hold(attacker, connection);
        await attacker.pause(100);
      }),
  },
  {
    row: "35b",
    name: `${HELD} connections pipeline 40 big pages each and read nothing until they are cut off`,
    least: { connections: 0.01 },
    minSeconds: CUT_SECONDS,
    prepare: bigCatalogue,
    run: async (attacker) => {
      const connections = Array.from({ length: HELD }, () => attacker.connect({ reads: "none" }));
      for (const connection of connections) {
        await connection.opened();
        connection.write(bigPages(attacker, 40));
      }
      await Promise.all(connections.map((connection) => hold(attacker, connection)));
    },
    expect: ({ counts }) => {
      const closed = counts["connections closed"] ?? 0;
      return closed < HELD ? [`${HELD - closed} connections that read nothing were not closed within ${CUT_SECONDS} s`] : [];
    },
  },
  {
    row: "35c",
    name: "100 connections ask for big pages and stop reading in the middle",
    least: { "200": 0.2 },
    prepare: bigCatalogue,
    run: (attacker) =>
      attacker.flood(100, async () => {
        const connection = attacker.connect({ reads: "beginning" });
        if (await connection.opened()) connection.write(bigPages(attacker, 4));
        await hold(attacker, connection);
        await attacker.pause(100);
      }),
  },
  {
    row: "35d",
    name: "100 connections ask twice for the largest file, all at the same moment, and never read; 8 others keep the gateway busy",
    least: { connections: 1 },
    run: async (attacker) => {
      const files = httpText("GET", "/docs/swagger-ui-bundle.js");
      const quiet = Array.from({ length: 100 }, () => attacker.connect({ reads: "none" }));
      await Promise.all(quiet.map((connection) => connection.opened()));
      await attacker.flood(108, async (lane) => {
        const connection = quiet[lane];
        if (connection !== undefined) {
          await attacker.pause(500);
          connection.write(Buffer.concat([files, files]));
          return hold(attacker, connection);
        }
        const busy = attacker.connect();
        if (await busy.opened()) busy.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(200));
        await busy.status(1_000);
        await attacker.pause(200);
        busy.destroy();
      });
    },
  },
];
