import type { Attack } from "../attack";
import type { Attacker } from "../attacker";

/** At random, the e-mail address of an existing account or an unknown one. */
const email = (attacker: Attacker): string =>
  attacker.random() < 0.5 ? attacker.pick(attacker.target.accounts).email : `${Math.floor(attacker.random() * 1e9)}@abuse.test`;

const login = (attacker: Attacker): Promise<number> =>
  attacker.send("POST", "/token", { json: { email: email(attacker), password: "a wrong password" } });
const register = (attacker: Attacker): Promise<number> =>
  attacker.send("POST", "/register", { json: { email: email(attacker), password: "a new password" } });

export const logins: readonly Attack[] = [
  {
    row: "37a",
    name: "5 logins a second, of known and unknown e-mails",
    least: { "401": 0.4 },
    run: (attacker) => attacker.paced(5, () => login(attacker)),
  },
  {
    row: "37b",
    name: "50 logins a second, of known and unknown e-mails",
    least: { "401": 0.4, "429": 5 },
    quick: ["one"],
    run: (attacker) => attacker.paced(50, () => login(attacker)),
  },
  {
    row: "37c",
    name: "5 registrations a second, of known and unknown e-mails",
    least: { "201": 0.1 },
    run: (attacker) => attacker.paced(5, () => register(attacker)),
  },
  {
    row: "37d",
    name: "50 registrations a second, of known and unknown e-mails",
    least: { "429": 5 }, // the registrations allowed per minute may be used up
    run: (attacker) => attacker.paced(50, () => register(attacker)),
  },
  {
    row: "37e",
    name: "128 logins at a time for one e-mail that is locked at the attacker's address",
    least: { "429": 200 },
    run: (attacker) =>
      attacker.flood(128, () => attacker.send("POST", "/token", { json: { email: "locked@abuse.test", password: "a wrong password" } })),
  },
];
