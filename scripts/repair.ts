import { parseArgs } from "node:util";
import { asSystem, call } from "../broker/contract";
import { audit, repair } from "../contracts/orders";
import { startScriptNode } from "./node";
import { run } from "./run";

/** Maximum wait until republished events are settled, in ms. */
const SETTLING_MS = 60_000;

/**
 * `npm run repair`: shows how orders and reservations differ after a backup was restored, and the repairs; `-- --apply` makes them. Joins
 * the running nodes if TRANSPORTER is set; otherwise hosts the services it needs. Exit code 1 if anything is left to do.
 */
run(async (config, onStop) => {
  const { apply } = parseArgs({ options: { apply: { type: "boolean", default: false } } }).values;
  const node = await startScriptNode({ config, services: ["users", "products", "orders"], onStop, level: "error" });
  try {
    let repairs = 0;
    for (;;) {
      const report = await call(node.broker, repair, { apply }, asSystem());
      repairs += report.repairs.length;
      for (const { order_id, action, what } of report.repairs) console.log(`  ${action.padEnd(15)}  order ${order_id}: ${what}`);
      if (apply && report.more) continue;
      for (const { order_id, what } of report.decisions) console.log(`  ${"manual decision".padEnd(15)}  order ${order_id}: ${what}`);
      const done = apply ? "repairs were made" : `repairs would be made by npm run repair -- --apply${report.more ? ", and more" : ""}`;
      console.log(`${repairs} ${done}; ${report.undecided} differences need a manual decision.`);
      if (!apply) return repairs + report.undecided === 0 ? 0 : 1;
      break;
    }
    const since = performance.now();
    let state = await call(node.broker, audit, {}, asSystem());
    // Wait until every order from before the last repair is decided. Under load, some order is always in flight.
    const isSettled = (): boolean => (state.oldest_in_flight ?? 0) * 1_000 < performance.now() - since;
    while (!isSettled() && performance.now() - since < SETTLING_MS) {
      await new Promise((resolve) => setTimeout(resolve, 500));
      state = await call(node.broker, audit, {}, asSystem());
    }
    const broken = state.checks.filter(({ ok }) => !ok);
    console.log(
      state.ok
        ? "The audit is clean."
        : `The audit still finds: ${broken.map(({ name, violations }) => `${name}: ${violations}`).join("; ")}`,
    );
    return state.ok ? 0 : 1;
  } finally {
    await node.stop();
  }
});
