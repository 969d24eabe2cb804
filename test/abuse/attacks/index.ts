import type { Attack, Check, CoveredElsewhere } from "../attack";
import { abandoned } from "./abandoned";
import { accounts } from "./accounts";
import { bodies } from "./bodies";
import { connections } from "./connections";
import { logins } from "./logins";
import { messages } from "./messages";
import { noise } from "./noise";
import { orders } from "./orders";
import { pages } from "./pages";
import { passwords } from "./passwords";
import { searches } from "./searches";
import { streams } from "./streams";
import { writes } from "./writes";

const FAMILIES = [pages, connections, logins, messages, searches, abandoned, writes, bodies, streams, passwords, noise, orders];

export const ATTACKS: readonly Attack[] = FAMILIES.flat().sort((a, b) => a.row.localeCompare(b.row));

export const CHECKS: readonly Check[] = [...accounts];

/** Rows that are covered by other tests. */
export const COVERED_ELSEWHERE: readonly CoveredElsewhere[] = [
  { row: "45", name: "the time of a login after BCRYPT_COST was raised", coveredBy: "test/service/users/logins.test.ts" },
  { row: "51a", name: "another service's database role", coveredBy: "test/service/docker/postgres-init.test.ts" },
  { row: "51b", name: "RabbitMQ's user", coveredBy: "test/service/docker/compose-run.test.ts" },
];
