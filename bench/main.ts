import path from "node:path";
import { parseArgs } from "node:util";
import { auditShop } from "../testkit/audit";
import { judge } from "./goals";
import { measureConfirmation, measureStorm, type Confirmation, type Storm } from "./latency";
import { Generator } from "./load";
import { overload } from "./overload";
import { findPgbench, Pgbench } from "./pgbench";
import { profile } from "./profile";
import { machine, markdown, write, type Results } from "./report";
import { scale } from "./scale";
import { SCENARIOS } from "./scenarios";
import { prepareSetup, progress, type Setup } from "./setup";
import { soak } from "./soak";
import { start } from "./start";
import { LIMIT, measureAll, measureIdle, summarise, type Cell, type Plan } from "./table";
import { TARGETS } from "./targets";

const { values: options } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    only: { type: "string" },
    targets: { type: "string" },
    rounds: { type: "string" },
    seconds: { type: "string" },
    overload: { type: "boolean", default: false },
    connections: { type: "string", default: "1024" },
    soak: { type: "boolean", default: false },
    minutes: { type: "string", default: "30" },
    rate: { type: "string", default: "300" },
    start: { type: "boolean", default: false },
    profile: { type: "boolean", default: false },
    scale: { type: "boolean", default: false },
    sizes: { type: "string", default: "1000,100000,1000000" },
    requests: { type: "string", default: "300" },
    out: { type: "string", default: path.join(__dirname, "results") },
  },
});

const QUICK = { only: ["get", "post"], targets: ["raw", "peer", "shop", "one", LIMIT.key], rounds: 3, seconds: 1.5, warmUp: 0.7 };
const FULL = { only: [...SCENARIOS.map(({ name }) => name), "confirmed", "storm"], targets: undefined, rounds: 5, seconds: 3, warmUp: 1 };
/** In a quick run, the results of one connection vary too much. */
const QUICK_CONNECTIONS = [32, 128];

const defaults = options.quick ? QUICK : FULL;
const only = options.only?.split(",") ?? defaults.only;
const wanted = options.targets?.split(",") ?? defaults.targets;
const rounds = Number(options.rounds ?? defaults.rounds);
const seconds = Number(options.seconds ?? defaults.seconds);

const known = [...TARGETS.map(({ key }) => key), LIMIT.key];
const unknown = [...only.filter((name) => !FULL.only.includes(name)), ...(wanted ?? []).filter((key) => !known.includes(key))];
if (unknown.length > 0 || !(rounds > 0) || !(seconds > 0)) {
  console.error(`--only takes ${FULL.only.join(",")}; --targets takes ${known.join(",")}; --rounds and --seconds are numbers above 0`);
  process.exit(2);
}

async function startAll(setup: Setup, skipped: string[]): Promise<Plan> {
  const targets: Plan["targets"][number][] = [];
  for (const kind of TARGETS) {
    if (wanted !== undefined && !wanted.includes(kind.key)) continue;
    const missing = kind.missing?.(setup);
    if (missing !== undefined) {
      if (options.targets !== undefined) throw new Error(`${kind.key} can't be measured: ${missing}`);
      skipped.push(`${kind.name}: ${missing}`);
      continue;
    }
    progress(`starting ${kind.name}`);
    targets.push({ kind, target: { key: kind.key, name: kind.name, ...(await kind.start(setup)) } });
  }
  const program = findPgbench();
  const limited = wanted?.includes(LIMIT.key) ?? true;
  if (limited && program === undefined) skipped.push(`${LIMIT.name}: pgbench is not installed (Debian: postgresql-contrib)`);
  const pgbench = limited && program !== undefined ? await Pgbench.prepare(program, setup) : undefined;
  const scenarios = SCENARIOS.filter(({ name }) => only.includes(name)).map((scenario) => ({
    ...scenario,
    connections: scenario.connections.filter((count) => !options.quick || QUICK_CONNECTIONS.includes(count)),
  }));
  return { scenarios, targets, pgbench, rounds, seconds, warmUp: defaults.warmUp };
}

/** Confirmation times, at half of the rate that POST c32 reached, and login storms: both have their own goals. */
async function measureLatencies(generator: Generator, { targets }: Plan, cells: readonly Cell[]): Promise<[Confirmation[], Storm[]]> {
  const confirmations: Confirmation[] = [];
  const storms: Storm[] = [];
  for (const { target } of targets) {
    if (!["shop", "shop2", "one"].includes(target.key)) continue;
    const posts = cells.find(({ scenario, connections, key }) => scenario === "post" && connections === 32 && key === target.key);
    if (only.includes("confirmed") && posts !== undefined) {
      const rate = summarise(posts).rate.median / 2;
      confirmations.push(await measureConfirmation(generator, target, { rate, seconds: seconds + 2, rounds: Math.min(rounds, 3) }));
    }
    if (only.includes("storm") && target.key !== "shop2")
      storms.push(await measureStorm(generator, target, seconds + 2, Math.min(rounds, 3)));
  }
  return [confirmations, storms];
}

async function run(setup: Setup): Promise<boolean> {
  const skipped: string[] = [];
  const problems: string[] = [];
  const plan = await startAll(setup, skipped);
  for (const line of skipped) progress(`not measured: ${line}`);
  const generator = await Generator.start(setup);
  const targets = plan.targets.map(({ target }) => target);
  const idle = await measureIdle(targets, options.quick ? 3 : 10);
  const cells = await measureAll(generator, plan);
  const [confirmations, storms] = await measureLatencies(generator, plan, cells);

  for (const cell of cells) {
    const failures = cell.rounds.flatMap((round) => Object.entries(round.failures).map(([what, count]) => `${count} × ${what}`));
    if (failures.length > 0) problems.push(`${cell.scenario} c${cell.connections} of ${cell.target}: ${failures.join(", ")}`);
  }
  for (const { target, unconfirmed, failures } of confirmations)
    if (unconfirmed + failures > 0) problems.push(`POST→CONFIRMED of ${target}: ${failures} failed, ${unconfirmed} unconfirmed`);
  for (const { target, failures } of storms) if (failures > 0) problems.push(`the login storm of ${target}: ${failures} failed`);
  for (const { name, shop } of targets) {
    if (shop === undefined) continue;
    progress(`auditing ${name}`);
    problems.push(...(await auditShop(shop)).map((wrong) => `audit of ${name}: ${wrong}`));
  }
  const results: Results = {
    at: new Date().toISOString(),
    machine: machine(),
    options: { quick: options.quick, only, targets: targets.map(({ key }) => key), rounds, seconds, warmUp: plan.warmUp },
    idle,
    cells,
    confirmations,
    storms,
    verdicts: judge(cells, confirmations, storms),
    skipped,
    problems,
  };
  write(options.out, results);
  console.log(markdown(results));
  console.log(problems.length === 0 ? "Every shop's audit is clean; no request failed." : `${problems.length} PROBLEMS, see above.`);
  progress(`written to ${options.out}`);
  return problems.length === 0;
}

async function main(): Promise<void> {
  if (options.scale) {
    await scale({ sizes: options.sizes.split(",").map(Number), out: options.out, requests: Number(options.requests) });
    return;
  }
  const setup = await prepareSetup();
  let clean = false;
  try {
    if (options.overload) clean = await overload(setup, options.out, Number(options.connections));
    else if (options.soak) clean = await soak(setup, options.out, Number(options.minutes), Number(options.rate));
    else if (options.start) clean = await start(setup, options.out);
    else if (options.profile) clean = await profile(setup, options.out);
    else clean = await run(setup);
  } finally {
    await setup.stop();
  }
  process.exit(clean ? 0 : 1);
}

main().catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
