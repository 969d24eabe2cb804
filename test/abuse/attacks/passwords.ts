import { ATTACKER_ADDRESS, PASSWORD } from "../accounts";
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
  {
    row: "44c",
    name: "32 changes of own passwords, logins and registrations at a time, with right passwords",
    least: { "200": 0.05 },
    changesPassword: true,
    run: (attacker) =>
      attacker.flood(32, (lane) => {
        const { email, token } = attacker.pick(attacker.target.accounts);
        if (lane % 4 === 0) return attacker.send("POST", "/token", { json: { email, password: PASSWORD } });
        const unknown = { email: `${Math.floor(attacker.random() * 1e9)}@abuse.test`, password: PASSWORD };
        if (lane % 4 === 1) return attacker.send("POST", "/register", { json: unknown });
        return attacker.send("PUT", "/me/password", { token, json: { current_password: PASSWORD, new_password: PASSWORD } });
      }),
  },
];
