import http from "node:http";
import { parseArgs } from "node:util";
import { messageOf } from "../../testkit/error-message";
import { Documentation } from "../../testkit/openapi";
import { seededRandom } from "../../testkit/seeded-random";
import { wholeNumber } from "../../testkit/whole-number";
import { Coverage } from "./coverage";
import type { Fixture } from "./fixture";
import { generate } from "./generate";
import { judge } from "./judge";
import { learn } from "./learn";
import { curl, encode, type FuzzRequest } from "./request";
import { send } from "./send";
import { startTarget, type Target } from "./shop";
import { shrink } from "./shrink";
import { Values } from "./values";

const { values: options } = parseArgs({
  options: {
    requests: { type: "string", default: "20000" },
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
    /** time limit */
    seconds: { type: "string" },
  },
});
const most = wholeNumber("requests", options.requests);
const seed = wholeNumber("seed", options.seed, 0);
const deadline = options.seconds === undefined ? Infinity : performance.now() + wholeNumber("seconds", options.seconds) * 1_000;

const AT_ONCE = 16;
/** Stop after this many different failures. */
const MAX_FAILURES = 5;
const PROGRESS_MS = 5_000;

/** Set by a signal; the run then ends in order, so that everything it started is stopped. */
let isInterrupted = false;
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => (isInterrupted = true));

interface Failure {
  request: FuzzRequest;
  wrong: string[];
  /** The text of the response, as far as it arrived. */
  text: string;
}

async function run(target: Target): Promise<boolean> {
  const { url, fixture } = target;
  const documentation = await Documentation.of(url);
  const agent = new http.Agent({ keepAlive: true, maxSockets: AT_ONCE });
  const coverage = new Coverage(documentation);
  const failures = new Map<string, Failure>();
  let next = 0;

  /** Sends a request and judges the response. */
  const attempt = async (request: FuzzRequest): Promise<Failure> => {
    try {
      const response = await send(url, agent, encode(request, fixture));
      learn(fixture, request, response);
      coverage.count(request, response.status);
      return { request, wrong: judge(request, response, documentation), text: response.text };
    } catch (error) {
      return { request, wrong: [`no response: ${messageOf(error)}`], text: "" };
    }
  };
  const work = async (): Promise<void> => {
    while (next < most && performance.now() < deadline && failures.size < MAX_FAILURES && !isInterrupted) {
      const n = next++;
      const random = seededRandom(seed * 1_000_003 + n); // one generator per request, so that the n-th doesn't depend on earlier ones
      const request = generate(n, { documentation, fixture, random, values: new Values(documentation.document, random) });
      const result = await attempt(request);
      if (result.wrong.length > 0 && !failures.has(kindOf(result))) failures.set(kindOf(result), result);
    }
  };

  const since = performance.now();
  const progress = setInterval(() => {
    console.log(`${next} requests, ${failures.size} failures, ${Math.round(next / ((performance.now() - since) / 1_000))} per second`);
  }, PROGRESS_MS);
  try {
    await Promise.all(Array.from({ length: AT_ONCE }, work));
  } finally {
    clearInterval(progress);
  }
  console.log(`${next} requests in ${((performance.now() - since) / 1_000).toFixed(1)} s, seed ${seed}\n`);
  console.log(coverage.table());

  const errors = target.errors();
  for (const failure of failures.values()) {
    const { request, wrong, text } = failure;
    const fails = async (candidate: FuzzRequest): Promise<boolean> => kindOf(await attempt(candidate)) === kindOf(failure);
    const least = await shrink(request, wrong, fails);
    console.log(`\nFAILED ${request.method} ${request.path} (request ${request.n} of seed ${seed}): ${wrong.join("; ")}`);
    console.log(`  deliberate faults: ${request.faults.join(", ") || "none"}${least ? "" : "; it did not fail a second time"}`);
    console.log(`  ${withoutTokens(curl(url, encode(least ?? request, fixture)), fixture)}`);
    if (text !== "") console.log(`  ${text.slice(0, 500)}`);
  }
  for (const line of errors.slice(0, 10)) console.log(`\nLOGGED ${line.slice(0, 2_000)}`);
  agent.destroy();
  // A short run need not cover everything.
  const missing = next >= 5_000 && failures.size === 0 ? coverage.missing() : [];
  for (const one of missing) console.log(`NEVER SEEN ${one}`);
  const isClean = failures.size === 0 && errors.length === 0 && missing.length === 0;
  console.log(`\n${isClean ? "clean" : `not clean; reproduce with --seed ${seed} --requests ${next}`}`);
  return isClean;
}

/** Replaces tokens, which become invalid when the shop stops, by placeholders. */
const withoutTokens = (text: string, { accounts }: Fixture): string =>
  Object.entries(accounts).reduce((rest, [name, { token }]) => rest.replaceAll(token, `<token of the ${name}>`), text);

/** Failures of the same kind are reported once. */
const kindOf = ({ request: { line, method }, wrong }: Failure): string =>
  wrong.length === 0 ? "" : `${line} ${method === "HEAD"} ${(wrong[0] ?? "").replace(/[\da-f-]{36}|\d{4,}|"[^"]*"/gi, "…")}`;

async function main(): Promise<void> {
  const target = await startTarget();
  try {
    process.exitCode = (await run(target)) ? 0 : 1;
  } finally {
    await target.stop();
  }
}

void main();
