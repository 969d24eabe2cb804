import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { cp } from "node:fs/promises";
import path from "node:path";
import { databaseNames, SERVICES, type DatabaseName } from "../../config";
import { build } from "../../testkit/build";
import { Load } from "../../testkit/load/load";
import { checkOut, newestRelease, releaseAt } from "../../testkit/release";
import { ROOT } from "../../testkit/repository";
import { Deployment } from "../../testkit/system/deployment";
import { FAILPOINTS } from "../../testkit/system/node";
import { startPostgres, type System } from "../../testkit/system/system";
import { queryValue, untilAccepting, type Fault, type Setup, type SetupPlan } from "./fault";
import { withOwnSetup } from "./setup";

/*
 * A new version replaces an older one while the shop runs.
 */

const MIGRATION = "900_of_a_fault.sql";
const TABLES: Readonly<Record<DatabaseName, string>> = { users: "users", products: "products", orders: "orders" };

/** All that a migration may do while nodes of the previous version are serving. */
const additive = (table: string): string =>
  [
    `alter table ${table} add column of_a_fault bigint not null default 0 check (of_a_fault >= 0);`,
    `create index of_a_fault on ${table} (of_a_fault);`,
    "create table of_another_fault (id bigint generated always as identity primary key);",
    "",
  ].join("\n");

/** Builds the newest release; if there is none, uses the build of this tree. */
async function older(common: System, folder: string): Promise<string> {
  const wanted = process.env["CHAOS_RELEASE"];
  const release = wanted === undefined ? await newestRelease() : await releaseAt(wanted);
  return release === undefined ? common.buildFolder : build(folder, [FAILPOINTS], await checkOut(release, folder));
}

/** Copies this tree's build and adds one migration to each service. */
async function newer(common: System, folder: string): Promise<string> {
  const copy = path.join(folder, "newer");
  await cp(common.buildFolder, copy, { recursive: true, verbatimSymlinks: true });
  for (const [service] of databaseNames())
    writeFileSync(path.join(copy, "services", service, "migrations", MIGRATION), additive(TABLES[service]));
  return copy;
}

interface Deployments {
  from: Deployment;
  to: Deployment;
}

/** Starts a shop of the older version. The nodes of the newer version are prepared but not started. */
async function setUp({ common, random, onStop }: SetupPlan): Promise<[Setup, Deployments]> {
  const folder = path.join(common.folder, "fault-42");
  mkdirSync(folder);
  onStop(() => {
    for (const name of ["postgres", "source", "source.tar", "build", "newer"])
      rmSync(path.join(folder, name), { recursive: true, force: true, maxRetries: 5 });
    return Promise.resolve();
  });
  const postgres = await startPostgres(folder);
  onStop(() => postgres.stop());
  const system = await common.another("fault-42", postgres);
  onStop(() => system.stop());
  const from = await Deployment.of(system, "old", await older(common, folder));
  const to = await Deployment.of(system, "new", await newer(common, folder));
  await from.start(...SERVICES);
  const load = new Load(system, random);
  await load.setUp();
  return [
    { system, load },
    { from, to },
  ];
}

export const UPGRADE_FAULTS: readonly Fault[] = [
  {
    number: 42,
    name: "additive migrations under load, old and new version side by side",
    impossible: () => (existsSync(path.join(ROOT, ".git")) ? undefined : "this tree has no history, so its newest release is unknown"),
    ...withOwnSetup(setUp, async (chaos, { from, to }) => {
      const { load, expect } = chaos;
      for (const service of SERVICES) {
        await to.start(service);
        await untilAccepting(chaos); // by both versions, on the newer schema
        await from.shutDown(service);
      }
      const { failures, failed } = load.window;
      expect(failures === 0, `${failures} requests failed: ${failed.join("; ")}`);
      for (const [service] of databaseNames()) {
        const applied = await queryValue(chaos, service, "select true from schema_migrations where name = $1", MIGRATION);
        expect(applied === true, `${service} did not migrate`);
      }
    }),
  },
];
