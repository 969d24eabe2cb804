import { randomBytes } from "node:crypto";
import type { ServiceBroker } from "moleculer";
import { call } from "../broker/contract";
import type { Product } from "../contracts/products";
import { create, list } from "../contracts/products";
import { register } from "../contracts/users";
import { demoProduct, MARK } from "./catalogue";

export interface Wish {
  /** How many products there are to be. */
  products: number;
  /** Of the demo seller; made up where not said. */
  password?: string | undefined;
  log: (line: string) => void;
}

/** Calls under way at one time. */
const SIDE_BY_SIDE = 16;
const PROGRESS = 1_000;

/**
 * Brings the demo catalogue up to so many products, by the services' own actions, and says what was there and what was added. Done again it adds
 * nothing; broken off, it goes on. The seller is that of the products that are there, else a new one, since no action tells who has an e-mail.
 */
export async function fillCatalogue(broker: ServiceBroker, { products, password, log }: Wish): Promise<void> {
  const there = await demoProducts(broker);
  const skus = new Set(there.map(({ sku }) => sku));
  const missing = Array.from({ length: products }, (_, n) => demoProduct(n)).filter(({ sku }) => !skus.has(sku));
  if (missing.length === 0) {
    log(`Nothing to add: ${there.length} demo products are there.`);
    return;
  }
  const id = there[0]?.seller_id ?? (await newSeller(broker, password, log));
  for (let done = 0; done < missing.length; done += SIDE_BY_SIDE) {
    if (broker.stopping) return; // by Ctrl-C: a node waits for what is under way, and that must come to an end
    const some = missing.slice(done, done + SIDE_BY_SIDE);
    await Promise.all(some.map((product) => call(broker, create, product, { meta: { user: { id, role: "user" } } })));
    if (done > 0 && done % PROGRESS < SIDE_BY_SIDE) log(`${done} of ${missing.length} …`);
  }
  log(`${missing.length} products are put on sale by the demo seller (user ${id}); ${there.length} were there.`);
}

async function demoProducts(broker: ServiceBroker): Promise<Product[]> {
  const found: Product[] = [];
  for (let cursor: string | null | undefined; cursor !== null;) {
    const page = await call(broker, list, { q: MARK, limit: 100, ...(cursor !== undefined && { cursor }) });
    found.push(...page.items);
    cursor = page.next_cursor;
  }
  return found.filter(({ sku }) => sku?.startsWith("DEMO-"));
}

/** The password is told here, and never again. */
async function newSeller(broker: ServiceBroker, given: string | undefined, log: Wish["log"]): Promise<string> {
  const email = `demo-${randomBytes(4).toString("hex")}@example.com`;
  const password = given ?? randomBytes(12).toString("base64url");
  const { id } = await call(broker, register, { email, password });
  log(`The demo seller is ${email}${given === undefined ? `, with the password ${password}` : ""}`);
  return id;
}
