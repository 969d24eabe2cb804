import { checkHistory } from "../../testkit/history/check";
import { Recorder } from "../../testkit/history/recorder";
import type { RecordedUser } from "./recorded-user";
import { ScenarioShop } from "./scenario-shop";
import { SCENARIOS, type Scenario } from "./scenarios";

/*
 * Runs scenarios against the shop of its own source tree, and prints the violations in the clients' histories as one line of JSON per scenario:
 * `node --import tsx test/mutants/run.ts "a repeated key" …`
 */

/** The result of a scenario. */
export interface Verdict {
  scenario: Scenario;
  /** Each begins with the check that found it. */
  violations: string[];
  /** Why the scenario did not complete, as may happen with a mutant. */
  broken?: string;
}

async function run(shop: ScenarioShop, scenario: Scenario): Promise<Verdict> {
  const history = new Recorder();
  const [seller, buyer, stranger] = [await shop.signUp(history), await shop.signUp(history), await shop.signUp(history)];
  const users = [seller, buyer, stranger];
  const error: unknown = await SCENARIOS[scenario]({ shop, seller, buyer, stranger }).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  await shop.events.clear();
  if (await shop.becomesQuiet()) await readAll(history, users);
  const violations = checkHistory(history.operations ?? []).violations.map(({ check, message }) => `${check}: ${message}`);
  return { scenario, violations, ...(error instanceof Error && { broken: error.message }) };
}

/** Reads all products and orders of the history as their owners. Nothing is in flight, so the stock must balance. */
async function readAll(history: Recorder, users: readonly RecordedUser[]): Promise<void> {
  const begin = performance.now();
  for (const operation of [...(history.operations ?? [])]) {
    const owner = users.find(({ user }) => "user" in operation && user === operation.user);
    if (owner === undefined) continue;
    if (operation.kind === "product.create" && operation.seen) await owner.product(operation.seen.id);
    if (operation.kind === "order.place" && operation.seen) await owner.read(operation.seen.id);
  }
  history.add({ kind: "quiet", begin, end: performance.now() });
}

async function main(names: readonly string[]): Promise<void> {
  const shop = await ScenarioShop.start();
  process.once("SIGTERM", () => void shop.stop().finally(() => process.exit(1))); // the caller has stopped waiting
  try {
    for (const name of names) {
      if (!isScenario(name)) throw new Error(`there is no scenario "${name}"`);
      console.log(JSON.stringify(await run(shop, name)));
    }
  } finally {
    await shop.stop();
  }
}

const isScenario = (name: string): name is Scenario => name in SCENARIOS;

main(process.argv.slice(2)).then(
  () => process.exit(0),
  (error: unknown) => {
    console.error(error);
    process.exit(1);
  },
);
