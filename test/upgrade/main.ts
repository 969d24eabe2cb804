import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { matches } from "../../broker/validator";
import { SERVICES, type ServiceName } from "../../config";
import { build } from "../chaos/build";
import { endAll } from "../chaos/ends";
import { Fleet } from "../chaos/fleet";
import { Load } from "../chaos/load";
import { RabbitMQ } from "../chaos/rabbitmq";
import { checkOut, named, newestRelease, type Release } from "../chaos/release";
import { System, type How } from "../chaos/system";
import { verify } from "../chaos/verdict";
import { seeded } from "../chaos/wait";
import { read } from "../history/recorder";
import { Consoles } from "./consoles";
import { Outcome, Sighting } from "./messages";
import { Tour } from "./tour";
import { NEW, offered, OLD, Traffic } from "./traffic";

/*
 * `npm run upgrade`: the newest release before HEAD, and this tree next to it, on the same databases and broker under load.
 */

const { values: options } = parseArgs({ options: { release: { type: "string" }, rate: { type: "string", default: "10" } } });

/** In this order both ways: then each service has met each other one of the other version only, as the older and as the newer. */
const ORDER: readonly ServiceName[] = ["users", "products", "orders", "api"];
const QUIET_MS = 45_000;
const MOST_SHOWN = 20;

const since = Date.now();
const stops: (() => Promise<void>)[] = [];
let folder = ""; // of a run

const say = (line: string): void => {
  console.log(`${((Date.now() - since) / 1_000).toFixed(0).padStart(4)} s  ${line}`);
};

async function upgradeFrom(release: Release): Promise<string[]> {
  say(`from ${release.version} (${release.revision.slice(0, 7)}) to this tree`);
  folder = mkdtempSync(path.join(tmpdir(), "shop-upgrade-"));
  const aside = path.join(folder, "release");
  const older = checkOut(release, aside).then((root) => build(aside, root));
  older.catch(() => undefined); // it is awaited below, once all that must be stopped is known
  const system = await System.start(folder, {}, (stop) => stops.push(stop));
  const traffic = new Traffic();
  const consoles = new Consoles();
  const watched = (version: typeof OLD | typeof NEW): How => ({
    flags: ["--require", path.join(system.buildFolder, "test/upgrade/witness.js")],
    hear: (message) => {
      if (matches(Sighting, message)) traffic.note(message.what, message.from, version);
      else consoles.hear(read(Outcome, message));
    },
  });
  const from = await Fleet.of(system, OLD, await older, watched(OLD));
  const to = await Fleet.of(system, NEW, system.buildFolder, watched(NEW));

  await from.join(...SERVICES);
  const before = await offered(system);
  const load = new Load(system, seeded(1));
  await load.setUp();
  const tour = new Tour(load, system, consoles);
  await tour.setUp();
  load.start(Number(options.rate));

  for (const [leaving, joining] of [
    [from, to],
    [to, from],
  ] as const)
    for (const service of ORDER) {
      const replaced = joining.join(service).then(() => leaving.leave(service));
      await Promise.all([replaced, tour.ofClients()]);
      say(`${service} is ${joining.name}`);
      if (service === ORDER.at(-1)) continue; // all are of one version
      await tour.ofClients();
      const { process } = leaving.slot("api");
      if (process) await tour.ofConsole(process);
    }
  await Promise.all([to.join(...SERVICES), tour.ofClients()]);
  say("two nodes of each service, an old and a new one");
  await tour.ofClients();
  await Promise.all([from.leave(...SERVICES), tour.ofClients()]);
  say("all are new");
  const { process } = to.slot("api");
  if (process) await tour.ofConsole(process);
  const now = await offered(system);

  await load.stop();
  const { accepted, failures, failed, slowest } = load.window;
  const violations = [...traffic.missing(before, now), ...lackedBySchema(), ...tour.violations, ...load.violations];
  if (failures > 0) violations.push(`${failures} requests failed`, ...failed);
  violations.push(...(await verify(system, load, QUIET_MS)), ...(await unsettled(system)));
  say(`${now.size} actions and events, ${accepted} orders of the load, ${failures} failed requests, the slowest took ${slowest} ms`);
  return violations;
}

/** What nodes have looked for in a database in vain: requests need not fail, since what an event can't do is done again, by a node of the other version. */
function lackedBySchema(): string[] {
  const logs = path.join(folder, "logs");
  const lines = readdirSync(logs).flatMap((name) => {
    const found = readFileSync(path.join(logs, name), "utf8").matchAll(/\b(?:column|relation|function|type) \S.* does not exist/g);
    return [...found].map(([what]) => `${path.basename(name, ".log")}: ${what}`);
  });
  return [...new Set(lines)];
}

/** At rest no order waits, and nothing is parked. */
async function unsettled(system: System): Promise<string[]> {
  const rows = await system.sql<{ line: string }>(
    "orders",
    `select 'order ' || id || ' is PENDING' as line from orders where status = 'PENDING'
     union all select 'the ' || event || ' of order ' || order_id || ' is ' || state || ': ' || coalesce(last_error, '') from outbox where state <> 'SETTLED'`,
  );
  return rows.map(({ line }) => line);
}

let cleaning: Promise<void> | undefined;

/** Once: a run that was broken off fails while all is being ended, and must not exit before that is done. */
const cleanUp = (keepLogs: boolean): Promise<void> => (cleaning ??= endEverything(keepLogs));

async function endEverything(keepLogs: boolean): Promise<void> {
  await endAll(stops);
  if (folder === "") return;
  const heavy = ["release", "build", "postgres", "rabbitmq", "compile-cache", "tsconfig.json"];
  for (const name of keepLogs ? heavy : [""]) rmSync(path.join(folder, name), { recursive: true, force: true, maxRetries: 5 });
}

async function main(): Promise<number> {
  const release = options.release === undefined ? await newestRelease() : await named(options.release);
  if (release === undefined) {
    console.log(
      "Nothing has been released before HEAD: no earlier commit has the subject `Release x.y.z`. There is no version to upgrade from,",
    );
    console.log("so nothing was tried. `npm run upgrade -- --release REV` upgrades from any commit.");
    return 0;
  }
  if (!RabbitMQ.isInstalled()) {
    console.error("The upgrade needs Debian's rabbitmq-server, which is not installed here: apt-get install rabbitmq-server");
    return 2;
  }
  const violations = await upgradeFrom(release);
  for (const violation of violations.slice(0, MOST_SHOWN)) console.log(`         ${violation.slice(0, 400)}`);
  say(violations.length === 0 ? "ok" : `${violations.length} VIOLATIONS; the logs of the nodes are in ${folder}`);
  return violations.length === 0 ? 0 : 1;
}

for (const signal of ["SIGINT", "SIGTERM"] as const)
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
