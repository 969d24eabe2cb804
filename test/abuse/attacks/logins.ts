import type { Attack } from "../attack";
import type { Tools } from "../tools";

/** At random, the e-mail address of an existing account or an unknown one. */
const email = (tools: Tools): string =>
  tools.random() < 0.5 ? tools.pick(tools.target.accounts).email : `${Math.floor(tools.random() * 1e9)}@abuse.test`;

const login = (tools: Tools): Promise<number> =>
  tools.send("POST", "/token", { json: { email: email(tools), password: "a wrong password" } });
const register = (tools: Tools): Promise<number> =>
  tools.send("POST", "/register", { json: { email: email(tools), password: "a new password" } });

export const logins: readonly Attack[] = [
  {
    row: "37a",
    name: "5 logins a second, of known and unknown e-mails",
    least: { "401": 0.4 },
    run: (tools) => tools.paced(5, () => login(tools)),
  },
  {
    row: "37b",
    name: "50 logins a second, of known and unknown e-mails",
    least: { "401": 0.4, "429": 5 },
    quick: ["one"],
    run: (tools) => tools.paced(50, () => login(tools)),
  },
  {
    row: "37c",
    name: "5 registrations a second, of known and unknown e-mails",
    least: { "201": 0.1 },
    run: (tools) => tools.paced(5, () => register(tools)),
  },
  {
    row: "37d",
    name: "50 registrations a second, of known and unknown e-mails",
    least: { "429": 5 }, // the registrations allowed per minute may be used up
    run: (tools) => tools.paced(50, () => register(tools)),
  },
  {
    row: "37e",
    name: "128 logins at a time for one e-mail that is locked at the attacker's address",
    least: { "429": 200 },
    run: (tools) =>
      tools.flood(128, () => tools.send("POST", "/token", { json: { email: "locked@abuse.test", password: "a wrong password" } })),
  },
];
