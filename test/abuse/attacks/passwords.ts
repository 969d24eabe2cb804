import type { Attack } from "../attack";
import { ATTACKER_ADDRESS } from "../people";

/** More than an account may fail from all addresses, together. */
const ADDRESSES = [ATTACKER_ADDRESS, ...Array.from({ length: 15 }, (_, n) => `127.0.1.${n + 1}`)];

export const passwords: readonly Attack[] = [
  {
    row: "44a",
    name: "3 wrong passwords a second for the victims",
    changesPassword: true,
    run: (tools) =>
      tools.paced(3, () =>
        tools.send("POST", "/token", { json: { email: tools.pick(tools.target.victims), password: "a wrong password" } }),
      ),
  },
  {
    row: "44b",
    name: "8 wrong passwords a second for the victims, from 16 addresses in turn",
    changesPassword: true,
    run: (tools) =>
      tools.paced(8, () => {
        const json = { email: tools.pick(tools.target.victims), password: "a wrong password" };
        return tools.send("POST", "/token", { json }, tools.pick(ADDRESSES));
      }),
  },
];
