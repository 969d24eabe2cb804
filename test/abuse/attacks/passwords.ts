import { ATTACKER_ADDRESS } from "../accounts";
import type { Attack } from "../attack";

/** Only a few, since addresses take turns at the hashing threads, and two cores do two hashes per second. */
const ADDRESSES = [ATTACKER_ADDRESS, "127.0.1.1", "127.0.1.2"];

export const passwords: readonly Attack[] = [
  {
    row: "44a",
    name: "3 wrong passwords a second for the victims",
    least: { "401": 0.2 },
    changesPassword: true,
    run: (attacker) =>
      attacker.paced(3, () =>
        attacker.send("POST", "/token", { json: { email: attacker.pick(attacker.target.victims), password: "a wrong password" } }),
      ),
  },
  {
    row: "44b",
    name: "2 wrong passwords a second for the victims, from three addresses",
    least: { "401": 0.1 },
    changesPassword: true,
    run: (attacker) =>
      attacker.paced(2, () => {
        const json = { email: attacker.pick(attacker.target.victims), password: "a wrong password" };
        return attacker.send("POST", "/token", { json }, attacker.pick(ADDRESSES));
      }),
  },
];
