import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { FAULTS, type Chaos, type Fault } from "./faults";
import { Load } from "./load";
import { RabbitMQ } from "./rabbitmq";
import { System, type Topology } from "./system";
import { recovered, verify } from "./verdict";
import { messageOf, seeded, until } from "./wait";

interface Row {
  fault: Fault;
  accepted: number;
  repeats: number;
  failures: number;
  silence: number;
  slowest: number;
  recovery: number | undefined;
  violations: string[];
  notRun?: string | undefined;
}

const { values: options } = parseArgs({
  options: {
    fault: { type: "string" },
    random: { type: "boolean", default: false },
    seed: { type: "string", default: "1" },
    minutes: { type: "string", default: "10" },
    rate: { type: "string", default: "25" },
    quick: { type: "boolean", default: false },
    list: { type: "boolean", default: false },
    "without-repeat": { type: "boolean", default: false },
    "stock-transporter": { type: "boolean", default: false },
  },
});

const WITHIN_MS = 45_000;
const CONTROL_WITHIN_MS = 25_000;
const control = options["without-repeat"] || options["stock-transporter"];
const random = seeded(Number(options.seed));
const stops: (() => Promise<void>)[] = [];
const folder = mkdtempSync(path.join(tmpdir(), "shop-chaos-"));
const since = Date.now();
let now = "starting";
let progress: NodeJS.Timeout | undefined;

/** The environment that makes a control of a run: the harness must find what it is there to find. */
function environment(): Record<string, string> {
  return {
    ...(options["without-repeat"] && { OUTBOX_RETRY_MS: "3600000", OUTBOX_RETRY_MAX_MS: "3600000", CHAOS_WITHOUT_REVIVAL: "1" }),
    ...(options["stock-transporter"] && { CHAOS_STOCK_TRANSPORTER: "1" }),
  };
}

function chosen(): Fault[] {
  if (options.fault !== undefined) {
    const numbers = options.fault.split(",").map(Number);
    return numbers.map((number) => {
      const fault = FAULTS.find((one) => one.number === number);
      if (fault === undefined) throw new Error(`there is no fault ${number}: see --list`);
      return fault;
    });
  }
  if (options["without-repeat"]) return FAULTS.filter(({ number }) => [4, 5, 10].includes(number));
  if (options["stock-transporter"]) return FAULTS.filter(({ number }) => [13, 12].includes(number)).reverse();
  return FAULTS.filter((fault) => !options.quick || fault.quick);
}

/** One fault from a sound system to a sound system. */
async function run(fault: Fault, system: System, load: Load, topology: Topology): Promise<Row> {
  const violations: string[] = [];
  const row: Row = { fault, accepted: 0, repeats: 0, failures: 0, silence: 0, slowest: 0, recovery: undefined, violations };
  row.notRun = fault.impossible?.();
  if (row.notRun !== undefined) return row;
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
  const within = control ? CONTROL_WITHIN_MS : (fault.within ?? WITHIN_MS);

  now = `fault ${fault.number}, ${fault.name}`;
  await system.scale({ ...topology, ...fault.nodes });
  load.start(Number(options.rate));
  const warm = () => load.window.accepted >= 15;
  await until("the load runs", warm, 60_000).catch(note("before the fault"));
  load.openWindow();
  await fault.inject(chaos).catch(note("the fault could not be done, or its end not be seen"));
  const end = Date.now();
  // looked at for longer, to tell late from never
  row.recovery = await recovered(system, load, end, within * (control ? 1 : 2)).catch(note("no recovery"));
  if ((row.recovery ?? 0) > within) violations.push(`recovery took ${row.recovery} ms, more than ${within}`);
  await load.stop();
  const { accepted, repeats, failures, silence, slowest } = load.window;
  Object.assign(row, { accepted, repeats, failures, silence, slowest });
  violations.push(...(await verify(system, load, within).catch((error: unknown) => [`no verdict: ${messageOf(error)}`])));
  await fault.after?.(chaos).catch(note("afterwards"));
  violations.push(...load.violations.splice(0));
  return row;
}

async function runAll(): Promise<Row[]> {
  const system = await System.start(folder, environment(), (stop) => stops.push(stop));
  const topology: Topology = options.random ? { api: 2, users: 2, products: 2, orders: 2 } : {};
  await system.scale(topology);
  const load = new Load(system, random);
  await load.setUp();
  progress = setInterval(() => {
    const { accepted, failures } = load.window;
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${seconds()} s  ${now}: ${accepted} orders, ${failures} failed requests`);
  }, 1_000);

  const rows: Row[] = [];
  const told = new Set<string>(); // an order that is lost stays lost: it is told once
  for (const fault of options.random ? schedule() : chosen()) {
    const row = await run(fault, system, load, topology);
    row.violations = row.violations.filter((violation) => !told.has(violation));
    for (const violation of row.violations) told.add(violation);
    rows.push(row);
    tell(row);
    if (row.recovery === undefined && row.notRun === undefined) await system.startAfresh();
  }
  return rows;
}

function* schedule(): Generator<Fault> {
  const faults = FAULTS.filter((fault) => fault.random);
  const end = Date.now() + Number(options.minutes) * 60_000;
  while (Date.now() < end) {
    const fault = faults[Math.floor(random() * faults.length)];
    if (fault !== undefined) yield fault;
  }
}

const seconds = (): string => ((Date.now() - since) / 1000).toFixed(0);

function tell({ fault, violations, notRun, recovery }: Row): void {
  const what = notRun ?? (violations.length > 0 ? `${violations.length} VIOLATIONS` : `ok, recovered after ${recovery ?? "?"} ms`);
  if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
  console.log(`${seconds().padStart(5)} s  ${fault.number} ${fault.name}: ${what}`);
  for (const violation of violations.slice(0, 5)) console.log(`           ${violation.slice(0, 400)}`);
}

function table(rows: Row[]): string {
  const head = ["#", "fault", "orders", "repeats", "failed", "silence ms", "slowest ms", "recovery ms", "violations"];
  const lines = rows.map((row) =>
    row.notRun !== undefined
      ? [row.fault.number, row.fault.name, `not run: ${row.notRun}`]
      : [
          row.fault.number,
          row.fault.name,
          row.accepted,
          row.repeats,
          row.failures,
          row.silence,
          row.slowest,
          row.recovery ?? "never",
          row.violations.length,
        ],
  );
  const cells = [head, ...lines].map((line) => line.map(String));
  const widths = head.map((_, i) => Math.max(...cells.filter((line) => line.length === head.length).map((line) => line[i]?.length ?? 0)));
  return cells
    .map((line) => line.map((cell, i) => (i === 1 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join("  "))
    .join("\n");
}

async function cleanUp(keepLogs: boolean): Promise<void> {
  clearInterval(progress);
  for (const stop of stops.reverse()) await stop().catch((error: unknown) => console.error("cleaning up:", messageOf(error)));
  stops.length = 0;
  if (!existsSync(folder)) return;
  const kept = ["build", "postgres", "rabbitmq", "lone", "compile-cache", "tsconfig.json"];
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
    console.error("The fault runs need Debian's rabbitmq-server, which is not installed here: apt-get install rabbitmq-server");
    return 2;
  }
  const rows = await runAll();
  const found = rows.some((row) => row.violations.length > 0);
  console.log(`\n${table(rows)}\n`);
  if (options.random) console.log(`seed ${options.seed}, ${rows.length} faults`);
  if (control) console.log(found ? "The control was found out, as it should be." : "The control was NOT found out: the harness is blind.");
  if (found && !control) console.log(`The logs of the nodes are in ${path.join(folder, "logs")}`);
  await cleanUp(found && !control);
  return found === control ? 0 : 1;
}

for (const signal of ["SIGINT", "SIGTERM"] as const)
  process.on(signal, () => {
    void cleanUp(false).then(() => process.exit(130));
  });

main().then(
  (code) => process.exit(code),
  async (error: unknown) => {
    console.error(error);
    await cleanUp(true);
    process.exit(error instanceof Error && error.message.includes("RabbitMQ takes connections") ? 2 : 1);
  },
);
