import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { Client } from "pg";
import { databaseNames, SERVICES, type DatabaseName, type ServiceName } from "../../config";
import { sqlState } from "../../mixins/sql-state";
import { DATABASE_NAMES } from "../../scripts/node";
import { readPidFile } from "../../scripts/postgres-binaries";
import { startStandby } from "../../testkit/standby";
import type { System } from "../../testkit/system/system";
import { eventually } from "../../testkit/until";
import { ALL_PARTS, countParked, expectRecovery, untilAccepting, type Chaos, type Fault } from "./fault";

/*
 * Databases that respond, but can't execute what they are asked to.
 */

export const DATABASE_FAULTS: readonly Fault[] = [
  {
    number: 40,
    name: "the endpoint leads to a hot standby, then the databases are read-only",
    withinMs: 15_000, // rows published during the fault are due again after 5 or 10 s
    random: ALL_PARTS,
    async inject(chaos) {
      const before = await countParked(chaos);
      await behindStandby(chaos);
      await readOnly(chaos);
      await expectRecovery(chaos, "the databases were writable again");
      chaos.expect((await countParked(chaos)) === before, "outbox rows were parked");
    },
  },
  {
    number: 43,
    name: "a migration behind an open transaction",
    random: ALL_PARTS,
    async inject({ system, load, expect }) {
      const name = `of_a_fault_${Date.now()}`; // a new name each time
      const file = path.join(system.buildFolder, `services/orders/migrations/900_${name}.sql`);
      const count = (service: ServiceName): number => system.running(service).length + Number(service === "orders");
      const operator = await connect(system, "orders");
      await operator.query("begin; select from orders limit 1");
      writeFileSync(file, `alter table orders add column ${name} int;\n`);
      try {
        const newer = system.scale(Object.fromEntries(SERVICES.map((service) => [service, count(service)])));
        await eventually("the migration waits", () => system.logsContain("the migration of order_db waits for orders"));
        load.openWindow();
        await pause(10_000);
        const { slowest, failures } = load.window;
        expect(slowest < 2_000, `a request took ${slowest} ms`);
        expect(failures === 0, `${failures} requests failed`);
        await operator.query("rollback");
        await newer;
      } finally {
        rmSync(file);
        await operator.end();
      }
    },
  },
  {
    number: 48,
    name: "others take all connections but two",
    withinMs: 15_000,
    random: ["orders", "products", "databases"],
    async inject(chaos) {
      const { system } = chaos;
      const others: Client[] = [];
      try {
        await takeAll(system, others);
        // Disconnect the nodes; the other clients then take the free connections before the nodes reconnect.
        for (let round = 0; round < 3; round++) {
          await others[0]?.query(
            "select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'client backend' and application_name <> $1",
            [OTHERS],
          );
          await takeAll(system, others);
        }
        await Promise.all(others.splice(-2).map((one) => one.end()));
        await pause(8_000);
      } finally {
        await Promise.all(others.map((one) => one.end()));
      }
      await untilAccepting(chaos);
    },
  },
];

const OTHERS = "others";
const TOO_MANY_CONNECTIONS = "53300";

/** The URL that bypasses the proxies. */
function urlOf(system: System, service: DatabaseName): string {
  const url = new URL(system.databases[service].url);
  url.port = String(readPidFile(system.dataDir).port);
  return url.href;
}

async function connect(system: System, service: DatabaseName): Promise<Client> {
  const client = new Client({ connectionString: urlOf(system, service), application_name: OTHERS, connectionTimeoutMillis: 5_000 });
  client.on("error", () => undefined); // the next statement fails as well
  await client.connect();
  return client;
}

/** Moves the address to a standby and back, as a provider may. Connections to the standby stay open. */
async function behindStandby(chaos: Chaos): Promise<void> {
  const { system } = chaos;
  const folder = path.join(system.folder, "single-node"); // a folder that is removed at the end
  mkdirSync(folder, { recursive: true });
  const standby = await startStandby(system.dataDir, urlOf(system, "orders"), folder);
  const lead = (urlTo: (service: DatabaseName) => string): void => {
    for (const [service] of databaseNames()) system.databases[service].retarget(urlTo(service));
  };
  const home = Object.fromEntries(databaseNames().map(([service]) => [service, urlOf(system, service)]));
  try {
    lead((service) => standby.url(DATABASE_NAMES[service]));
    for (const [service] of databaseNames()) system.databases[service].reset();
    await pause(4_000);
    lead((service) => home[service] ?? "");
    await expectRecovery(chaos, "the endpoint led to the primary again");
  } finally {
    await standby.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Makes the databases read-only, as some providers do when a disk is nearly full. Sessions opened meanwhile stay read-only. */
async function readOnly({ system }: Chaos): Promise<void> {
  for (const [service] of databaseNames()) {
    const database = DATABASE_NAMES[service];
    await system.sql(service, `alter database ${database} set default_transaction_read_only = on`);
    await system.sql(service, "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and pid <> pg_backend_pid()", [
      database,
    ]);
  }
  await pause(10_000);
  for (const [service] of databaseNames())
    await system.sql(service, `begin read write; alter database ${DATABASE_NAMES[service]} reset default_transaction_read_only; commit`);
}

/** Takes all free connections. @param others gets them; may contain earlier ones */
async function takeAll(system: System, others: Client[]): Promise<void> {
  for (let isFull = false; !isFull;) {
    const taken = await Promise.allSettled(Array.from({ length: 40 }, () => connect(system, "orders")));
    for (const one of taken)
      if (one.status === "fulfilled") others.push(one.value);
      else if (sqlState(one.reason) === TOO_MANY_CONNECTIONS) isFull = true;
      else throw one.reason;
  }
}
