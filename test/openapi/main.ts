import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { runCleanups } from "../../testkit/cleanups";
import { startWholeShop } from "../../testkit/whole-shop";
import { journey } from "./journey";
import { lintWithRedocly, lintWithSpectral, startPrism } from "./tools";

/*
 * `npm run openapi`: whether tools can read the OpenAPI document. Redocly and Spectral lint it, and Prism compares each request and response
 * of a journey through the shop with it.
 */

const DOCUMENT_MS = 10_000;
const stops: (() => unknown)[] = [];

async function check(): Promise<boolean> {
  const folder = await mkdtemp(path.join(tmpdir(), "shop-openapi-"));
  stops.push(() => rm(folder, { recursive: true, force: true }));
  const { node } = await startWholeShop(stops);
  const shop = node.url ?? "";
  const file = path.join(folder, "openapi.json");
  const response = await fetch(`${shop}/openapi.json`, { signal: AbortSignal.timeout(DOCUMENT_MS) });
  await writeFile(file, JSON.stringify(await response.json(), null, 2)); // in lines, to which the linters refer
  const linted = [lintWithRedocly(file), lintWithSpectral(file)];

  console.log("\n== prism");
  const { requests, violations } = await journey(await startPrism(file, shop, stops));
  for (const violation of violations) console.log(violation.slice(0, 1_000));
  console.log(`${requests} requests, ${violations.length} violations`);
  return linted.every(Boolean) && violations.length === 0;
}

let cleaning: Promise<void> | undefined;
/** Only once: an interrupted check fails during the clean-up, and must not exit before it is complete. */
const cleanUp = (): Promise<void> => (cleaning ??= runCleanups(stops));

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
  process.on(signal, () => {
    void cleanUp().then(() => process.exit(130));
  });

check().then(
  async (isClean) => {
    await cleanUp();
    process.exit(isClean ? 0 : 1);
  },
  async (error: unknown) => {
    console.error(error);
    await cleanUp();
    process.exit(1);
  },
);
