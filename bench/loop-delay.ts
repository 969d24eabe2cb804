import { appendFileSync } from "node:fs";
import { monitorEventLoopDelay } from "node:perf_hooks";

/*
 * Preloaded into a node (`--require`): writes the event loop's delay to BENCH_LOOP_FILE, one line every five seconds with the time, and the mean
 * and maximum in ms.
 */
const EVERY_MS = 5_000;
/** Sampling interval. The monitor includes it in each delay, so it is subtracted. */
const RESOLUTION_MS = 10;
const { BENCH_LOOP_FILE: file = "" } = process.env;
const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
delay.enable();
setInterval(() => {
  const [mean, max] = [delay.mean, delay.max].map((ns) => Math.max(0, ns / 1e6 - RESOLUTION_MS).toFixed(2));
  appendFileSync(file, `${Date.now()} ${mean} ${max}\n`);
  delay.reset();
}, EVERY_MS).unref();
