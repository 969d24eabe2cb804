import type { Attack, Prepared, Stage } from "../attack";
import { insertBigProducts } from "../data";
import { httpText, type Tools, type Wire } from "../tools";

const PIPELINED = 300;
const PROBE_MS = 1_000;

async function prepare(stage: Stage): Promise<Prepared> {
  const seller = stage.people.attackers[0]?.id ?? "";
  await insertBigProducts(stage, seller);
  return { seller: [seller] };
}

/** Requests for different pages, so that no two can share a response. */
function bigPages(tools: Tools, count: number): Buffer {
  const [seller = ""] = tools.ids("seller");
  const offset = Math.floor(tools.random() * 500);
  const page = (_: unknown, n: number): Buffer =>
    httpText("GET", `/products?limit=100&seller_id=${seller}&min_price=${(offset + n + 1) / 100}`);
  return Buffer.concat(Array.from({ length: count }, page));
}

/** Probes the connection by writing, since a client that reads nothing doesn't notice that it was closed. */
async function hold(tools: Tools, wire: Wire): Promise<void> {
  while (wire.isOpen && !tools.isOver) {
    await tools.pause(PROBE_MS);
    wire.write("\r\n"); // RFC 9112, 2.2: ignored before a request
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
    prepare,
    run: (tools) =>
      tools.flood(5, async () => {
        const wire = tools.wire({ reads: "none" });
        if (await wire.opened()) wire.write(bigPages(tools, PIPELINED));
        await hold(tools, wire);
        await tools.pause(100);
      }),
  },
  {
    row: "35b",
    name: `${HELD} connections pipeline 40 big pages each and read nothing until they are cut off`,
    least: { connections: 0.01 },
    minSeconds: CUT_SECONDS,
    prepare,
    run: async (tools) => {
      const wires = Array.from({ length: HELD }, () => tools.wire({ reads: "none" }));
      for (const wire of wires) {
        await wire.opened();
        wire.write(bigPages(tools, 40));
      }
      await Promise.all(wires.map((wire) => hold(tools, wire)));
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
    prepare,
    run: (tools) =>
      tools.flood(100, async () => {
        const wire = tools.wire({ reads: "beginning" });
        if (await wire.opened()) wire.write(bigPages(tools, 4));
        await hold(tools, wire);
        await tools.pause(100);
      }),
  },
];
