import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { freePorts } from "../../testkit/free-ports";
import { ROOT } from "../../testkit/repository";
import { eventually } from "../../testkit/until";

/*
 * The tools that read the document, as their commands: so each is used as clients use it.
 */

const LINT_MS = 120_000;
const START_MS = 60_000;
/** Nothing about this run is sent anywhere. */
const QUIET = { REDOCLY_TELEMETRY: "off", REDOCLY_SUPPRESS_UPDATE_NOTICE: "true" };

const commandOf = (tool: string): string => path.join(ROOT, "node_modules/.bin", tool);

/** Lints a document. The tool prints what it finds. @returns whether it finds nothing, not even a warning */
function lint(tool: string, ...args: readonly string[]): boolean {
  console.log(`\n== ${tool}`);
  const { status, error } = spawnSync(process.execPath, [commandOf(tool), ...args], {
    cwd: ROOT,
    env: { ...process.env, ...QUIET },
    stdio: "inherit",
    timeout: LINT_MS,
  });
  if (error !== undefined) console.log(`${tool}: ${error.message}`);
  return status === 0;
}

export const lintWithRedocly = (file: string): boolean => lint("redocly", "lint", file, "--config", "test/openapi/redocly.yaml");

export const lintWithSpectral = (file: string): boolean =>
  lint("spectral", "lint", file, "--ruleset", "test/openapi/spectral.yaml", "--fail-severity", "hint");

/**
 * Starts Prism in front of a shop: a proxy that compares each request and response with the document, and replaces a response that differs by
 * an error.
 * @param stops what to call afterwards, in reverse order
 * @returns its URL
 */
export async function startPrism(file: string, shop: string, stops: (() => unknown)[]): Promise<string> {
  const [port = 0] = await freePorts(1);
  const args = ["proxy", file, shop, "--errors", "--host", "127.0.0.1", "--port", String(port)];
  const child = spawn(process.execPath, [commandOf("prism"), ...args], { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const closed = once(child, "close");
  stops.push(async () => {
    child.kill("SIGKILL"); // it keeps nothing
    await closed;
  });
  const url = `http://127.0.0.1:${port}`;
  const serves = async (): Promise<boolean> => (await fetch(`${url}/health/live`, { signal: AbortSignal.timeout(2_000) })).ok;
  try {
    await eventually("Prism serves", async () => child.exitCode !== null || (await serves()), START_MS);
  } catch (cause) {
    throw new Error(`its output:\n${output}`, { cause });
  }
  if (child.exitCode !== null) throw new Error(`Prism exited:\n${output}`);
  return url;
}
