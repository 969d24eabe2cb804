import path from "node:path";
import { parseArgs } from "node:util";
import { auditShop } from "../../testkit/audit";
import { messageOf } from "../../testkit/error-message";
import { RabbitMQ } from "../../testkit/rabbitmq";
import { checkReport, writeReport } from "../../testkit/report-section";
import { seedProducts } from "../../testkit/seed-products";
import { wholeNumber } from "../../testkit/whole-number";
import { insertAccounts } from "./accounts";
import type { Attack, Check, CoveredElsewhere } from "./attack";
import { AttackRunner, isSlowOnly, startVictims, type AttackResult, type Times } from "./attack-runner";
import { ATTACKS, CHECKS, COVERED_ELSEWHERE } from "./attacks";
import { Infrastructure } from "./infrastructure";
import { LAYOUTS, Shop, type Layout } from "./shop";
import { cellsOf, checkCells, coveredElsewhereCells, HEAD, missingTests, table } from "./table";
import type { Samples } from "./verdict";

const { values: options } = parseArgs({
  options: {
    row: { type: "string" },
    layout: { type: "string", default: "both" },
    seconds: { type: "string" },
    seed: { type: "string", default: "1" },
    quick: { type: "boolean", default: false },
    list: { type: "boolean", default: false },
    report: { type: "string" },
  },
});

const SECTION = { runs: "abuse runs", script: "abuse" };
/** Durations in seconds. */
const FULL: Times & { baseline: number } = { baseline: 15, attack: 20, recovery: 4 };
const QUICK: Times & { baseline: number } = { baseline: 5, attack: 5, recovery: 2 };

const BASELINE_TRIES = 5;

const since = Date.now();
const seconds = (): string => ((Date.now() - since) / 1000).toFixed(0);
const log = (line: string): void => {
  console.log(`${seconds().padStart(5)} s  ${line}`);
};
let infrastructure: Infrastructure | undefined;

const wantedRows = options.row?.split(",");
const seed = wholeNumber("seed", options.seed, 0);
const times = {
  ...(options.quick ? QUICK : FULL),
  ...(options.seconds !== undefined && { attack: wholeNumber("seconds", options.seconds) }),
};

/** `35` selects 35a, 35b …; `35b` selects only that one. */
const isRow = (row: string, wanted: string): boolean => row === wanted || row.replace(/[a-z]$/, "") === wanted;
const isChosen = ({ row }: Attack | Check | CoveredElsewhere): boolean => wantedRows?.some((wanted) => isRow(row, wanted)) ?? true;

/** @throws if a requested row doesn't exist, or is excluded by --quick and --layout: an empty run would seem to pass */
function checkRows(): void {
  const quick = ATTACKS.filter((attack) => layouts().some((layout) => attack.quick?.includes(layout)));
  const known = options.quick ? quick : [...ATTACKS, ...CHECKS, ...COVERED_ELSEWHERE];
  const unknown = wantedRows?.filter((wanted) => !known.some(({ row }) => isRow(row, wanted))) ?? [];
  if (unknown.length > 0) throw new Error(`there is no row ${unknown.join(", ")} in this selection: see --list`);
}

function layouts(): Layout[] {
  const chosen = LAYOUTS.filter((layout) => options.layout === "both" || layout === options.layout);
  if (chosen.length === 0) throw new Error(`--layout must be both, ${LAYOUTS.join(" or ")}`);
  return chosen;
}

/** @throws if the victims' requests fail even without an attack */
async function measureBaseline(runner: AttackRunner, seconds: number): Promise<Samples> {
  for (let tries = 1; ; tries++) {
    const { samples, failures } = await runner.measureVictims(seconds);
    if (Object.keys(failures).length === 0) return samples;
    log(`without an attack, the victims' requests failed: ${JSON.stringify(failures)}`);
    if (tries === BASELINE_TRIES) throw new Error("the victims' requests fail without an attack: is the machine busy with something else?");
  }
}

/** @returns cells of the table, and whether the shop withstood everything */
async function attackLayout(infrastructure: Infrastructure, layout: Layout): Promise<{ cells: string[][]; isHeld: boolean }> {
  log(`${layout}: starting`);
  const shop = await Shop.start(infrastructure, layout);
  await seedProducts(shop.databaseUrl("products"));
  const accounts = await insertAccounts(shop);
  const victims = await startVictims();
  infrastructure.onStop(() => {
    victims.kill();
  });
  const context = { shop, accounts };
  const runner = new AttackRunner(infrastructure, context, victims, times, seed);
  await runner.measureVictims(2, true); // warm-up, since code is slow when it runs for the first time
  const baseline = await measureBaseline(runner, times.baseline);

  const cells: string[][] = [];
  let isHeld = true;
  const note = (row: string, name: string, violations: readonly string[]): void => {
    isHeld &&= violations.length === 0;
    log(`${layout} ${row} ${name}: ${violations.length === 0 ? "held" : "NOT HELD"}`);
    for (const violation of violations.slice(0, 15)) console.log(`           ${violation.slice(0, 400)}`);
  };
  for (const attack of ATTACKS.filter(isChosen).filter(({ quick }) => !options.quick || quick?.includes(layout) === true)) {
    const first = await runner.run(attack, baseline);
    let result: AttackResult = first;
    if (options.quick && first.violations.length > 0) {
      // In CI, a busy machine may look like harm, but hardly twice.
      log(`${layout} ${attack.row}: ${first.violations[0] ?? ""}; repeating with a new baseline`);
      result = await runner.run(attack, await measureBaseline(runner, times.baseline));
    } else if (isSlowOnly(first) && options.seconds === undefined) {
      // Of fewer than a hundred requests, the p99 is the slowest one, and a single fsync may be that slow.
      log(`${layout} ${attack.row}: ${first.violations[0] ?? ""}; repeating for three times as long`);
      result = await runner.run(attack, baseline, 3 * times.attack);
    }
    note(attack.row, attack.name, result.violations);
    cells.push(cellsOf(layout, result, result !== first));
  }
  for (const check of CHECKS.filter(isChosen).filter(() => !options.quick)) {
    const violations = await check.check(context).catch((error: unknown) => [messageOf(error)]);
    note(check.row, check.name, violations);
    cells.push(checkCells(layout, check, violations));
  }
  const wrong = await auditShop({ url: shop.url, adminToken: accounts.admins[0]?.token ?? "" });
  note("audit", "GET /admin/consistency after all attacks", wrong);
  victims.kill();
  await shop.stop();
  return { cells, isHeld };
}

async function main(): Promise<number> {
  if (options.list) {
    for (const { row, name } of [...ATTACKS, ...CHECKS]) console.log(`${row.padStart(4)}  ${name}`);
    for (const { row, name, coveredBy } of COVERED_ELSEWHERE) console.log(`${row.padStart(4)}  ${name}: ${coveredBy}`);
    return 0;
  }
  checkRows();
  if (layouts().includes("nodes") && !RabbitMQ.isInstalled()) {
    console.error("The layout of four processes needs Debian's rabbitmq-server, which is not installed: apt-get install rabbitmq-server");
    return 2;
  }
  if (options.report !== undefined) checkReport(options.report, SECTION);
  infrastructure = await Infrastructure.prepare();
  const results = [];
  for (const layout of layouts()) results.push(await attackLayout(infrastructure, layout));
  const coveredElsewhere = COVERED_ELSEWHERE.filter(isChosen).filter(() => !options.quick);
  const missing = missingTests(coveredElsewhere);
  for (const { row, coveredBy } of missing) console.log(`row ${row} refers to ${coveredBy}, which doesn't exist`);
  const cells = [...results.flatMap((result) => result.cells), ...coveredElsewhere.map(coveredElsewhereCells)];
  console.log(`\n${table(cells)}\n`);
  if (options.report !== undefined) await writeReport(options.report, Number(seconds()), HEAD, cells, SECTION);
  const isHeld = missing.length === 0 && results.every((result) => result.isHeld);
  if (!isHeld) console.log(`The processes' logs are in ${path.join(infrastructure.folder, "logs")}`);
  await infrastructure.stop(!isHeld);
  return isHeld ? 0 : 1;
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
  process.on(signal, () => {
    void (infrastructure?.stop(false) ?? Promise.resolve()).then(() => process.exit(130));
  });

main().then(
  (code) => process.exit(code),
  async (error: unknown) => {
    console.error(error);
    await infrastructure?.stop(true);
    process.exit(1);
  },
);
