import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { matches } from "../../broker/validator";
import { databaseNames, SERVICES, type ServiceName } from "../../config";
import { build } from "../../testkit/build";
import { runCleanups } from "../../testkit/cleanups";
import { validated } from "../../testkit/history/recorder";
import { Load } from "../../testkit/load/load";
import { verify } from "../../testkit/load/verdict";
import { RabbitMQ } from "../../testkit/rabbitmq";
import { checkOut, newestRelease, releaseAt, type Release } from "../../testkit/release";
import { seededRandom } from "../../testkit/seeded-random";
import { Deployment } from "../../testkit/system/deployment";
import { FAILPOINTS } from "../../testkit/system/node";
import { System, type LaunchOptions } from "../../testkit/system/system";
import { Consoles } from "./consoles";
import { CallResult, HandledMessage } from "./messages";
import { Tour } from "./tour";
import { NEW, offeredNames, OLD, Traffic } from "./traffic";

/*
 * `npm run upgrade`: runs the newest release before HEAD and this tree side by side, on the same databases and broker, under load.
 */

const { values: options } = parseArgs({ options: { release: { type: "string" }, rate: { type: "string", default: "10" } } });

/** The order of both the upgrade and the downgrade. So each service has worked with only newer and with only older versions of each other one. */
const ORDER: readonly ServiceName[] = [...databaseNames().map(([service]) => service), "api"];
const QUIET_MS = 45_000;
const MAX_SHOWN = 20;

const since = Date.now();
const stops: (() => Promise<void>)[] = [];
let folder = ""; // of the run

const log = (line: string): void => {
  console.log(`${((Date.now() - since) / 1_000).toFixed(0).padStart(4)} s  ${line}`);
};

async function upgradeFrom(release: Release): Promise<string[]> {
  log(`from ${release.version} (${release.revision.slice(0, 7)}) to this tree`);
  folder = mkdtempSync(path.join(tmpdir(), "shop-upgrade-"));
  const aside = path.join(folder, "release");
  const older = checkOut(release, aside).then((root) => build(aside, [FAILPOINTS], root));
  older.catch(() => undefined); // awaited below, after the system's cleanup has been registered
  const system = await System.start(folder, (stop) => stops.push(stop), { preloads: ["test/upgrade/probe.ts"] });
  const traffic = new Traffic();
  const consoles = new Consoles();
  const watched = (version: typeof OLD | typeof NEW): LaunchOptions => ({
    flags: ["--require", path.join(system.buildFolder, "test/upgrade/probe.js")],
    onMessage: (message) => {
      if (matches(HandledMessage, message)) traffic.note(message.what, message.from, version);
      else consoles.receive(validated(CallResult, message));
    },
  });
  const from = await Deployment.of(system, OLD, await older, watched(OLD));
  const to = await Deployment.of(system, NEW, system.buildFolder, watched(NEW));

  await from.start(...SERVICES);
  const before = await offeredNames(
    system,
    SERVICES.filter((service) => from.has(service)),
  );
  const load = new Load(system, seededRandom(1));
  await load.setUp();
  const tour = new Tour(load, system, consoles);
  await tour.setUp();
  load.start(Number(options.rate));

  for (const [leaving, joining] of [
    [from, to],
    [to, from],
  ] as const)
    for (const service of ORDER) {
      if (!joining.has(service)) continue; // its new node stays: a new gateway reports it in /health
      const replaced = joining.start(service).then(() => leaving.shutDown(service));
      await Promise.all([replaced, tour.asClients()]);
      log(`${service} is ${joining.name} now`);
      if (service === ORDER.at(-1)) continue; // all services have the same version
      await tour.asClients();
      const { process } = leaving.slot("api");
      if (process) await tour.asConsole(process);
    }
  await Promise.all([to.start(...SERVICES), tour.asClients()]);
  log("each service has an old and a new node");
  await tour.asClients();
  await Promise.all([from.shutDown(...SERVICES), tour.asClients()]);
  log("all nodes are new");
  const { process } = to.slot("api");
  if (process) await tour.asConsole(process);
  const { process: other } = to.slot("users"); // calls of actions of its own node would not be counted
  if (other) await tour.asNewConsole(other);
  const now = await offeredNames(system);

  await load.stop();
  const { accepted, failures, failed, slowest } = load.window;
  const violations = [...traffic.missing(before, now), ...missingFromSchema(), ...tour.violations, ...load.violations];
  if (failures > 0) violations.push(`${failures} requests failed`, ...failed);
  violations.push(...(await verify(system, load, QUIET_MS)), ...(await unsettled(system)));
  log(`${now.size} actions and events, ${accepted} orders of the load, ${failures} failed requests, the slowest took ${slowest} ms`);
  return violations;
}

/** Database objects that nodes missed, according to their logs. Requests may still succeed, if a node of the other version handles the retry. */
function missingFromSchema(): string[] {
  const logs = path.join(folder, "logs");
  const lines = readdirSync(logs).flatMap((name) => {
    const found = readFileSync(path.join(logs, name), "utf8").matchAll(/\b(?:column|relation|function|type) \S.* does not exist/g);
    return [...found].map(([what]) => `${path.basename(name, ".log")}: ${what}`);
  });
  return [...new Set(lines)];
}

/** Orders and outbox rows that are not settled. At rest there must be none. */
async function unsettled(system: System): Promise<string[]> {
  const rows = await system.sql<{ line: string }>(
    "orders",
    `select 'order ' || id || ' is PENDING' as line from orders where status = 'PENDING'
     union all select 'the ' || event || ' of order ' || subject || ' is ' || state || ': ' || coalesce(last_error, '') from outbox where state <> 'SETTLED'`,
  );
  return rows.map(({ line }) => line);
}

let cleaning: Promise<void> | undefined;

/** Cleans up only once: an interrupted run fails during the cleanup, and must not exit before it is complete. */
const cleanUp = (keepLogs: boolean): Promise<void> => (cleaning ??= stopEverything(keepLogs));

async function stopEverything(keepLogs: boolean): Promise<void> {
  await runCleanups(stops);
  if (folder === "") return;
  const heavy = ["release", "build", "postgres", "rabbitmq", "compile-cache", "tsconfig.json"];
  for (const name of keepLogs ? heavy : [""]) rmSync(path.join(folder, name), { recursive: true, force: true, maxRetries: 5 });
}

async function main(): Promise<number> {
  const release = options.release === undefined ? await newestRelease() : await releaseAt(options.release);
  if (release === undefined) {
    console.log(
      "There is no release before HEAD, that is, no earlier commit with the subject `Release x.y.z`, so there is no version to upgrade from.",
    );
    console.log("Nothing was tested. `npm run upgrade -- --release REV` upgrades from any commit.");
    return 0;
  }
  if (!RabbitMQ.isInstalled()) {
    console.error("The upgrade needs Debian's rabbitmq-server, which is not installed: apt-get install rabbitmq-server");
    return 2;
  }
  const violations = await upgradeFrom(release);
  for (const violation of violations.slice(0, MAX_SHOWN)) console.log(`         ${violation.slice(0, 400)}`);
  log(violations.length === 0 ? "ok" : `${violations.length} VIOLATIONS; the nodes' logs are in ${folder}`);
  return violations.length === 0 ? 0 : 1;
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
  process.on(signal, () => {
    void cleanUp(false).then(() => process.exit(130));
  });

main().then(
  async (code) => {
    await cleanUp(code === 1);
    process.exit(code);
  },
  async (error: unknown) => {
    console.error(error);
    await cleanUp(true);
    process.exit(1);
  },
);
