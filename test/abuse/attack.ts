import type { Accounts } from "./accounts";
import type { Attacker } from "./attacker";
import type { Layout, Shop } from "./shop";

/** Ids that an attack has prepared, by name. */
export type Prepared = Readonly<Record<string, readonly string[]>>;

/** How often the attacker observed an HTTP status or an event of a connection. */
export type Counts = Readonly<Record<string, number>>;

/** What an attack can use before and after it runs. */
export interface AttackContext {
  shop: Shop;
  accounts: Accounts;
}

export interface Attack {
  /** row of the table in docs/security.md; letters distinguish the attacks of a family */
  row: string;
  name: string;
  /** The layouts on which --quick includes it. */
  quick?: readonly Layout[];
  /** Minimum duration in seconds, for attacks that wait for a timeout. */
  minSeconds?: number;
  /** Whether one of the victims keeps changing their password meanwhile. */
  changesPassword?: boolean;
  /** The products that victims read and order, instead of any. */
  products?: readonly string[];
  /** Prepares data by SQL, in the harness, which the attacker would have created before. */
  prepare?: (context: AttackContext) => Promise<Prepared>;
  /** Attacks until `attacker.isOver`, in a separate process with nice 10. */
  run: (attacker: Attacker) => Promise<void>;
  /** Minimum counts per second on average, well below measured ones. With less, the attack did not really happen. */
  least: Counts;
  /** Checks right after the attack. @returns violations */
  expect?: (outcome: AttackOutcome) => string[];
}

/** What an attack can check afterwards. */
export interface AttackOutcome {
  counts: Counts;
  /** Number of the victims' requests, and of their successful writes. */
  victims: number;
  victimsWrites: number;
  lines: readonly { level: string; text: string }[];
  /** Average number of cores that the shop and its database used between one and two seconds after the attack. */
  busyCores: number;
  before: Readings;
  after: Readings;
}

/** Readings before and after each attack. */
export interface Readings {
  /** Total size of the three databases. */
  databaseBytes: number;
  /** Number of lines of all nodes' metrics. */
  metricLines: number;
}

/** A row of the table that is a single check instead of a load. */
export interface Check {
  row: string;
  name: string;
  /** @returns violations */
  check: (context: AttackContext) => Promise<string[]>;
}

/** A row of the table that another test covers. */
export interface CoveredElsewhere {
  row: string;
  name: string;
  coveredBy: string;
}
