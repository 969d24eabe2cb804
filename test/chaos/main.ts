import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { parseArgs } from "node:util";
import { runCleanups } from "../../testkit/cleanups";
import { messageOf } from "../../testkit/error-message";
import { writeHistory } from "../../testkit/history/file";
import { Load } from "../../testkit/load/load";
import { pendingRows, recovered, verify } from "../../testkit/load/verdict";
import { RabbitMQ } from "../../testkit/rabbitmq";
import { checkReport, writeReport } from "../../testkit/report-section";
import { seededRandom } from "../../testkit/seeded-random";
import { System, type Topology } from "../../testkit/system/system";
import { eventually } from "../../testkit/until";
import { areCompatible, type Chaos, type Fault } from "./fault";
import { FAULTS } from "./faults";
import { cellsOf, HEAD, namesOf, numbersOf, table, type Row } from "./row";

const { values: options } = parseArgs({
  options: {
    fault: { type: "string" },
    random: { type: "boolean", default: false },
    seed: { type: "string", default: "1" },
    minutes: { type: "string", default: "10" },
    rate: { type: "string", default: "25" },
    quick: { type: "boolean", default: false },
    list: { type: "boolean", default: false },
    report: { type: "string" },
    history: { type: "string" },
    "without-republishing": { type: "boolean", default: false },
    "moleculer-transporter": { type: "boolean", default: false },
  },
});

const WITHIN_MS = 45_000;
/** Enough for a control's fault in a healthy system, and not much more, since the wait is expected to fail. */
const CONTROL_WITHIN_MS = 20_000;
const CONTROL_RETRY_MS = 5_000;
/** How often a random run causes a second fault during the first one. */
const OVERLAPPING = 1 / 4;
const control = options["without-republishing"] || options["moleculer-transporter"];
const random = seededRandom(Number(options.seed));
const stops: (() => Promise<void>)[] = [];
const since = Date.now();
let folder = ""; // of the run
let now = "starting";
let load: Load | undefined;
let progress: NodeJS.Timeout | undefined;

/** Variables that turn a run into a control: they disable a guard, and the harness must detect the consequences. */
function environment(): Record<string, string> {
  return {
    ...(options["without-republishing"] && { OUTBOX_RETRY_MS: "3600000", OUTBOX_RETRY_MAX_MS: "3600000", CHAOS_WITHOUT_REPUBLISHING: "1" }),
    ...(options["moleculer-transporter"] && { CHAOS_MOLECULER_TRANSPORTER: "1" }),
  };
}

function chosen(): Fault[] {
  if (options.fault !== undefined) {
    const numbers = options.fault.split(",").map(Number);
    return numbers.map((number) => {
      const fault = FAULTS.find((one) => one.number === number);
      if (fault === undefined) throw new Error(`there is no fault ${number}; see --list`);
      return fault;
    });
  }
  // only one fault, since its unsettled rows would count against the next one
  if (options["without-republishing"]) return FAULTS.filter(({ number }) => number === 4);
  if (options["moleculer-transporter"]) return FAULTS.filter(({ number }) => number === 12);
  return FAULTS.filter((fault) => !options.quick || fault.quick);
}

/** Runs one fault, or two that overlap, on the common system or on their own. */
async function run(faults: readonly Fault[], common: System, topology: Topology): Promise<Row> {
  const none = { accepted: 0, lost: 0, repeats: 0, failures: 0, silence: 0, slowest: 0, recovery: undefined, operations: undefined };
  const row: Row = { faults, isValid: true, ...none, violations: [] };
  row.notRun = faults.map((fault) => fault.impossible?.()).find((why) => why !== undefined);
  if (row.notRun !== undefined || load === undefined) return row;
  now = `fault ${numbersOf(row)}, ${namesOf(row)}`;
  const setUp = faults.find((fault) => fault.setUp !== undefined)?.setUp;
  if (setUp === undefined) await injectFaults(row, common, load, topology);
  else if (!options.random) await runOnOwnSetup(setUp, common, row);
  else await keepCommonLoad(row, common, load, () => runOnOwnSetup(setUp, common, row));
  return row;
}

/** Keeps the load of the common system running while a random run causes a fault in another one. */
async function keepCommonLoad(row: Row, common: System, load: Load, act: () => Promise<void>): Promise<void> {
  load.start(Number(options.rate));
  await act();
  await load.stop();
  const verdict = verify(common, load, WITHIN_MS).catch((error: unknown) => [`no verdict: ${messageOf(error)}`]);
  row.violations.push(...(await verdict), ...load.violations.splice(0));
}

async function runOnOwnSetup(setUp: NonNullable<Fault["setUp"]>, common: System, row: Row): Promise<void> {
  const usual = load;
  const ends: (() => Promise<void>)[] = [];
  const end = (): Promise<void> => runCleanups(ends);
  stops.push(end);
  try {
    const setup = await setUp({ common, random, onStop: (stop) => ends.push(stop) });
    load = setup.load;
    await injectFaults(row, setup.system, setup.load, {});
  } catch (error) {
    row.isValid = false;
    row.violations.push(`the fault's own shop could not be started: ${messageOf(error)}`);
  } finally {
    load = usual;
    await end();
    if (stops.includes(end)) stops.splice(stops.indexOf(end), 1); // unless everything is being ended
  }
}

/** Causes faults in a healthy system, and checks that it recovers. */
async function injectFaults(row: Row, system: System, load: Load, topology: Topology): Promise<void> {
  const { faults, violations } = row;
  const chaos: Chaos = {
    system,
    load,
    random,
    quick: options.quick || options.random,
    expect: (holds, what) => {
      if (!holds) violations.push(what);
    },
  };
  const note = (what: string) => (error: unknown) => {
    violations.push(`${what}: ${messageOf(error)}`);
    return undefined;
  };
  const invalidate = (what: string) => (error: unknown) => {
    row.isValid = false;
    note(what)(error);
    return undefined;
  };
  const withinMs = control ? CONTROL_WITHIN_MS : Math.max(...faults.map((fault) => fault.withinMs ?? WITHIN_MS));

  await system.scale(faults.reduce((nodes, fault) => ({ ...nodes, ...fault.nodes }), topology));
  load.start(Number(options.rate));
  const warm = () => load.window.accepted >= 15;
  await eventually("the load is running", warm, control ? CONTROL_WITHIN_MS : 60_000).catch(invalidate("before the fault"));
  load.openWindow();
  const inject = async (fault: Fault, n: number): Promise<void> => {
    if (n > 0) await pause(random() * 1_000); // at a random moment during the first one
    await fault.inject(chaos).catch(invalidate("the fault could not be caused, or its end was not observed"));
  };
  // a delivery on a closed channel would close the whole connection, from which Moleculer's transporter recovers
  if (options["moleculer-transporter"]) await quiesce(system, load);
  await Promise.all(faults.map(inject));
  if (options["moleculer-transporter"]) load.start(Number(options.rate));
  const end = Date.now();
  // waits longer than allowed, to distinguish a late recovery from none
  row.recovery = await recovered(system, load, end, withinMs * (control ? 1 : 2)).catch(note("no recovery"));
  if ((row.recovery ?? 0) > withinMs) violations.push(`recovery took ${row.recovery} ms, more than ${withinMs}`);
  await load.stop();
  const { accepted, repeats, failures, silence, slowest } = load.window;
  Object.assign(row, { accepted, repeats, failures, silence, slowest });
  const quiet = control && row.recovery === undefined ? 0 : withinMs;
  violations.push(...(await verify(system, load, quiet).catch((error: unknown) => [`no verdict: ${messageOf(error)}`])));
  for (const fault of faults) await fault.after?.(chaos).catch(note("afterwards"));
  violations.push(...load.violations.splice(0));
  row.lost = Object.values(load.losses.counts).reduce((sum, n) => sum + n, 0);
  if (!load.losses.hasAny) row.operations = load.history.operations?.length;
}

/** Stops the load and waits until nothing is in flight between the nodes. */
async function quiesce(system: System, load: Load): Promise<void> {
  await load.stop();
  await eventually("nothing is in flight", async () => (await pendingRows(system)).length === 0, CONTROL_WITHIN_MS);
}

async function runAll(): Promise<Row[]> {
  showProgress();
  folder = mkdtempSync(path.join(tmpdir(), "shop-chaos-"));
  const system = await System.start(folder, (stop) => stops.push(stop), { env: environment() });
  const topology: Topology = options.random ? { api: 2, users: 2, products: 2, orders: 2 } : {};
  await system.scale(topology);
  load = new Load(system, random, control ? { retryMs: CONTROL_RETRY_MS, withCancels: false } : {});
  await load.setUp();

  const rows: Row[] = [];
  const reported = new Set<string>(); // a lost order stays lost, so each violation is reported once
  for (const faults of options.random ? schedule() : chosen().map((fault) => [fault])) {
    const row = await run(faults, system, topology);
    if (cleaning !== undefined) break; // a signal has arrived
    row.violations = row.violations.filter((violation) => !reported.has(violation));
    for (const violation of row.violations) reported.add(violation);
    rows.push(row);
    logRow(row);
    if (row.recovery === undefined && row.notRun === undefined) await system.restartAll();
  }
  return rows;
}

/** The same faults for the same seed. It has its own generator, since the load draws numbers depending on time. */
function* schedule(): Generator<Fault[]> {
  const choice = seededRandom(Number(options.seed));
  const pick = (from: Fault[]): Fault[] => from.slice(Math.floor(choice() * from.length)).slice(0, 1);
  const faults = chosen().filter((fault) => fault.random);
  const end = Date.now() + Number(options.minutes) * 60_000;
  while (Date.now() < end) {
    const first = pick(faults);
    const second = choice() < OVERLAPPING ? pick(faults.filter((fault) => first.every((one) => areCompatible(one, fault)))) : [];
    yield [...first, ...second];
  }
}

/** Updates one line on a terminal; elsewhere, such as in CI logs, prints a line every 15 s. */
function showProgress(): void {
  const { isTTY } = process.stderr;
  const show = (): void => {
    const figures = load === undefined ? "" : `: ${load.window.accepted} orders, ${load.window.failures} failed requests`;
    process.stderr.write(`${isTTY ? "\r\x1b[K" : ""}${seconds().padStart(5)} s  ${now}${figures}${isTTY ? "" : "\n"}`);
  };
  progress = setInterval(show, isTTY ? 1_000 : 15_000);
}

const seconds = (): string => ((Date.now() - since) / 1000).toFixed(0);

function logRow(row: Row): void {
  const { violations, notRun, recovery, lost } = row;
  const ok = `ok, recovered after ${recovery ?? "?"} ms${lost > 0 ? `; ${lost} orders, cancels and adjustments were lost` : ""}`;
  const what = notRun ?? (violations.length > 0 ? `${violations.length} VIOLATIONS` : ok);
  if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
  console.log(`${seconds().padStart(5)} s  ${numbersOf(row)} ${namesOf(row)}: ${what}`);
  for (const violation of violations.slice(0, 5)) console.log(`           ${violation.slice(0, 400)}`);
}

let cleaning: Promise<void> | undefined;

/** Cleans up only once: an interrupted run fails during the cleanup, and must not exit before it is complete. */
const cleanUp = (keepLogs: boolean): Promise<void> => (cleaning ??= stopEverything(keepLogs));

async function stopEverything(keepLogs: boolean): Promise<void> {
  clearInterval(progress);
  await runCleanups(stops);
  if (!existsSync(folder)) return;
  const kept = ["build", "postgres", "rabbitmq", "single-node", "compile-cache", "tsconfig.json"];
  if (!keepLogs) rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  else for (const name of kept) rmSync(path.join(folder, name), { recursive: true, force: true, maxRetries: 5 });
}

async function main(): Promise<number> {
  if (options.list) {
    for (const { number, name, quick, random } of FAULTS)
      console.log(`${String(number).padStart(3)}  ${name}${quick ? "  [quick]" : ""}${random ? "  [random]" : ""}`);
    return 0;
  }
  if (!RabbitMQ.isInstalled()) {
    console.error("The fault runs need Debian's rabbitmq-server, which is not installed: apt-get install rabbitmq-server");
    return 2;
  }
  if (options.report !== undefined) checkReport(options.report);
  const rows = await runAll();
  // for a control, violations don't count if the system was unhealthy before or the fault could not be caused
  const found = rows.some((row) => row.violations.length > 0 && (row.isValid || !control));
  console.log(`\n${table(rows)}\n`);
  if (options.report !== undefined) await writeReport(options.report, Number(seconds()), HEAD, rows.map(cellsOf));
  if (options.history !== undefined) await writeHistory(options.history, load?.history.operations ?? []);
  if (options.random) console.log(`seed ${options.seed}, ${rows.flatMap((row) => row.faults).length} faults`);
  if (control) console.log(found ? "The control's violations were detected, as expected." : "The control's violations were NOT detected.");
  if (found && !control) console.log(`The nodes' logs are in ${folder}`);
  await cleanUp(found && !control);
  return found === control ? 0 : 1;
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
  process.on(signal, () => {
    void cleanUp(false).then(() => process.exit(130));
  });

main().then(
  (code) => process.exit(code),
  async (error: unknown) => {
    console.error(error);
    await cleanUp(true);
    process.exit(error instanceof Error && error.message.includes("RabbitMQ accepts connections") ? 2 : 1);
  },
);
