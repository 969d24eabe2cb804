import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { DATABASES } from "../../config";
import { DATABASE_NAMES } from "../../scripts/node";
import { freePorts } from "../../testkit/free-ports";
import { Load } from "../../testkit/load/load";
import { verify } from "../../testkit/load/verdict";
import { SystemNode } from "../../testkit/system/node";
import { NODE_ENV, type Shop } from "../../testkit/system/system";
import { eventually } from "../../testkit/until";
import { ALL_PARTS, allOrRandomOne, type Chaos, type Fault } from "./fault";
import { PatroniCluster, TTL_S } from "./patroni";

/** Maximum milliseconds without a new order. */
const SILENCE_MS = 15_000;
/** A frozen primary is replaced when its TTL has expired. */
const FROZEN_MS = (TTL_S + 10) * 1_000;

/** Measures the longest time without a new order. @returns a function that stops and returns it, ms */
function watchOrders(load: Load): () => number {
  let accepted = load.window.accepted;
  let last = Date.now();
  let longest = 0;
  const timer = setInterval(() => {
    if (load.window.accepted === accepted) return;
    accepted = load.window.accepted;
    longest = Math.max(longest, Date.now() - last);
    last = Date.now();
  }, 50);
  return () => {
    clearInterval(timer);
    return Math.max(longest, Date.now() - last);
  };
}

/** A separate shop on two servers under Patroni: order_db with a list of both hosts, the other databases through HAProxy. */
async function failover(chaos: Chaos): Promise<void> {
  const { system, random, expect } = chaos;
  const cluster = await PatroniCluster.start(path.join(system.folder, `patroni-${Date.now()}`));
  const [port = 0] = await freePorts(1);
  const shop: Shop = {
    url: `http://127.0.0.1:${port}`,
    sql: (database, text, values) => cluster.sql(DATABASE_NAMES[database], text, values),
  };
  const node = new SystemNode({
    build: system.buildFolder,
    logFile: path.join(system.folder, "logs", "failover.log"),
    readyUrl: `${shop.url}/health/ready`,
    env: {
      ...NODE_ENV,
      PORT: String(port),
      HOST: "127.0.0.1",
      [DATABASES.users]: cluster.urlOfProxy(DATABASE_NAMES.users),
      [DATABASES.products]: cluster.urlOfProxy(DATABASE_NAMES.products),
      [DATABASES.orders]: cluster.urlOfAll(DATABASE_NAMES.orders),
    },
  });
  try {
    await node.ready();
    const load = new Load(shop, random);
    await load.setUp();
    load.start(25);
    const more = (): Promise<void> => {
      const wanted = load.window.accepted + 20;
      return eventually("orders are accepted", () => load.window.accepted >= wanted, 60_000);
    };
    await more();
    const failovers: [what: string, most: number, act: () => Promise<void>][] = [
      ["killed", SILENCE_MS, () => cluster.killPrimary()],
      ["switched over", SILENCE_MS, () => cluster.switchOver()],
      ["frozen", FROZEN_MS, () => cluster.freezePrimary()],
    ];
    for (const [what, most, act] of allOrRandomOne(chaos, failovers)) {
      const longest = watchOrders(load);
      await act();
      await more();
      const silence = longest();
      expect(silence <= most, `no order was accepted for ${silence} ms while the primary was ${what}`);
      await cluster.untilHealthy();
      await pause(2_000); // normal operation between two failovers
    }
    await load.stop();
    for (const violation of [...(await verify(shop, load, 60_000)), ...load.violations]) expect(false, violation);
  } finally {
    node.signal("SIGTERM");
    await node.exited(20_000).catch(() => node.kill());
    cluster.stop();
  }
}

export const FAILOVER_FAULTS: readonly Fault[] = [
  {
    number: 39,
    name: "the primary killed, switched over, frozen (Patroni)",
    random: ALL_PARTS,
    impossible: () => PatroniCluster.missing(),
    inject: failover,
  },
];
