import type { Counts } from "./attack";
import { Attacker, type Target } from "./attacker";
import { ATTACKS } from "./attacks";
import { serve } from "./worker";

/** Low priority: the attacker only gets CPU time that the others leave. */
const NICE = 10;

async function attack(target: Target): Promise<{ counts: Counts }> {
  const one = ATTACKS.find(({ row }) => row === target.row);
  if (one === undefined) throw new Error(`there is no attack ${target.row}`);
  const attacker = new Attacker(target);
  await one.run(attacker);
  return { counts: await attacker.close() };
}

serve(attack, NICE);
