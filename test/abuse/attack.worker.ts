import { ATTACKS } from "./attacks";
import type { Counts } from "./attack";
import { Tools, type Target } from "./tools";
import { serve } from "./worker";

/** Low priority: the attacker only gets CPU time that the others leave. */
const NICE = 10;

async function attack(target: Target): Promise<{ counts: Counts }> {
  const one = ATTACKS.find(({ row }) => row === target.row);
  if (one === undefined) throw new Error(`there is no attack ${target.row}`);
  const tools = new Tools(target);
  await one.run(tools);
  return { counts: await tools.end() };
}

serve(attack, NICE);
