import { asSystem, call } from "../broker/contract";
import { audit } from "../contracts/orders";
import { logger } from "../broker/logger";
import type { ServiceName } from "../config";
import { startNode } from "./node";
import { run } from "./run";

/** The services whose actions it calls. */
const NEEDED = ["products", "orders"] as const satisfies readonly ServiceName[];
const WAIT_MS = 15_000;

/**
 * `npm run audit`: checks the invariants within and between the databases. Joins the running nodes if TRANSPORTER is set; otherwise
 * hosts the services it needs. Exit code 1 on any violation.
 */
run(async (config, onStop) => {
  const services = config.transporter === undefined ? NEEDED : [];
  const node = await startNode({ config, services, onStop, broker: { logger: logger("warn", config.log.format) } });
  try {
    await node.broker.waitForServices([...NEEDED], WAIT_MS);
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
