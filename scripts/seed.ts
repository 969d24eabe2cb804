import { parseArgs } from "node:util";
import { check } from "../broker/validator";
import { ConfigError } from "../config";
import { register } from "../contracts/users";
import { fillCatalogue } from "./fill";
import { startScriptNode } from "./node";
import { run } from "./run";

const MAX = 1_000_000;

/**
 * `npm run seed`, or `npm run seed -- --products 5000 --password …`: adds a demo seller's products to the catalogue. Joins the running nodes
 * if TRANSPORTER is set; otherwise hosts the services it needs, even while `npm start` is running.
 */
run(async (config, onStop) => {
  const options = readArguments();
  const node = await startScriptNode({ config, services: ["users", "products"], onStop, level: "warn" });
  try {
    await fillCatalogue(node.broker, { ...options, log: console.log });
    return 0;
  } finally {
    await node.stop();
  }
});

function readArguments(): { products: number; password: string | undefined } {
  const { products, password } = parse();
  if (!/^\d{1,7}$/.test(products) || Number(products) < 1 || Number(products) > MAX)
    throw new ConfigError([`--products is "${products}": set a whole number from 1 to ${MAX}`]);
  if (password !== undefined && check(register.params, { email: "demo@example.com", password }).length > 0)
    throw new ConfigError(["--password must have at least 8 characters and at most 72 bytes"]);
  return { products: Number(products), password };
}

function parse() {
  try {
    return parseArgs({ options: { products: { type: "string", default: "30" }, password: { type: "string" } } }).values;
  } catch (error) {
    throw new ConfigError([error instanceof Error ? error.message : String(error)]);
  }
}
