import { readFileSync } from "node:fs";
import path from "node:path";
import { DATABASE_NAMES } from "../../scripts/node";
import { readPidFile } from "../../scripts/postgres-binaries";
import { freePorts } from "../../testkit/free-ports";
import { Load } from "../../testkit/load/load";
import { verify } from "../../testkit/load/verdict";
import { sql } from "../../testkit/sql";
import { SystemNode } from "../../testkit/system/node";
import { NODE_ENV, type Shop } from "../../testkit/system/system";
import { eventually } from "../../testkit/until";
import type { Chaos } from "./fault";

/** A single process with all services and its own PostgreSQL is killed together with it, twice, and restarted. */
export async function killSingleNode({ system, random, expect }: Chaos): Promise<void> {
  const dataDir = path.join(system.folder, "single-node");
  const [port = 0] = await freePorts(1);
  const shop: Shop = {
    url: `http://127.0.0.1:${port}`,
    sql: (database, text, values) => {
      const password = readFileSync(path.join(dataDir, "postgres.password"), "utf8");
      const { port } = readPidFile(path.join(dataDir, "postgres"));
      return sql(`postgres://postgres:${password}@127.0.0.1:${port}/${DATABASE_NAMES[database]}`, text, values);
    },
  };
  const launch = async (): Promise<SystemNode> => {
    const env = { ...NODE_ENV, PORT: String(port), HOST: "127.0.0.1", DATA_DIR: dataDir };
    const node = new SystemNode({
      build: system.buildFolder,
      logFile: path.join(system.folder, "logs", "single-node.log"),
      readyUrl: `${shop.url}/health/ready`,
      env,
    });
    await node.ready();
    return node;
  };

  let node = await launch();
  try {
    const load = new Load(shop, random);
    await load.setUp();
    load.start(30);
    for (let time = 0; time < 2; time++) {
      const enough = load.orders.size + 60;
      await eventually("orders are being sent", () => load.orders.size >= enough, 20_000);
      await node.killTree();
      node = await launch();
    }
    const enough = load.orders.size + 30;
    await eventually("orders are accepted again", () => load.orders.size >= enough, 20_000);
    await load.stop();
    for (const violation of [...(await verify(shop, load, 60_000)), ...load.violations]) expect(false, violation);
  } finally {
    node.signal("SIGTERM"); // stops its PostgreSQL, too
    await node.exited(20_000).catch(() => node.killTree());
  }
}
