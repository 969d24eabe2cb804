import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { ServiceBroker } from "moleculer";
import openapiTS, { astToString, type OpenAPI3 } from "openapi-typescript";
import manifest from "../../package.json";
import { openapi } from "../../services/api/openapi/document";
import { allRoutes } from "../../services/api/routes/all";
import { ROOT } from "../../testkit/repository";

const FILE = path.join(ROOT, "client/src/schema.ts");
const HEAD = "/* Generated from the OpenAPI document by `npm run client`. Don't edit it: change the contracts, and run that. */\n\n";

/** The types of the routes that the shop serves, as TypeScript. */
async function clientTypes(): Promise<string> {
  const broker = new ServiceBroker({ logger: false }); // only requests need it
  const document = openapi(allRoutes(broker, { basePath: "", publicUrl: "https://shop.example.com" }), manifest, "");
  return HEAD + astToString(await openapiTS(document as OpenAPI3));
}

/** Writes the types, or with `--check` compares them. */
async function main(): Promise<number> {
  const types = await clientTypes();
  if (!process.argv.includes("--check")) writeFileSync(FILE, types);
  else if (readFileSync(FILE, "utf8") !== types) {
    console.error("client/src/schema.ts is not up to date: run `npm run client`");
    return 1;
  }
  return 0;
}

main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    console.error(error);
    process.exit(1);
  },
);
