import { asSystem, call } from "../broker/contract";
import { audit } from "../contracts/orders";
import { startScriptNode } from "./node";
import { run } from "./run";

/**
 * `npm run audit`: checks the invariants within and between the databases. Joins the running nodes if TRANSPORTER is set; otherwise
 * hosts the services it needs. Exit code 1 on any violation.
 */
run(async (config, onStop) => {
  const node = await startScriptNode({ config, services: ["products", "orders"], onStop, level: "warn" });
  try {
    const report = await call(node.broker, audit, {}, asSystem());
    console.log(
      `Checked at ${report.checked_at}: ${report.in_flight} orders in flight (the oldest for ${Math.round(report.oldest_in_flight ?? 0)} s), ${report.parked} parked`,
    );
    for (const { name, ok, violations, sample } of report.checks) {
      console.log(`  ${ok ? "ok  " : "FAIL"}  ${name}${ok ? "" : `: ${violations}`}`);
      for (const line of sample) console.log(`          ${line}`);
    }
    return report.ok ? 0 : 1;
  } finally {
    await node.stop();
  }
});
