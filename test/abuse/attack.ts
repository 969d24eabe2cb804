import type { People } from "./people";
import type { Layout, Shop } from "./shop";
import type { Tools } from "./tools";

/** What an attack has prepared: ids, by name. */
export type Prepared = Readonly<Record<string, readonly string[]>>;

/** How often the attacker met what: by HTTP status, or by what became of a connection. */
export type Counts = Readonly<Record<string, number>>;

/** What the harness has for an attack, before and after it. */
export interface Stage {
  shop: Shop;
  people: People;
}

export interface Attack {
  /** of docs/security.md's table; letters tell the attacks of a family apart */
  row: string;
  name: string;
  /** Belongs to the selection of --quick on these layouts. */
  quick?: readonly Layout[];
  /** Seconds that it needs at least, to see a time-out. */
  minSeconds?: number;
  /** One of the victims changes their password meanwhile, again and again. */
  changesPassword?: boolean;
  /** The victims order these, instead of any. */
  products?: readonly string[];
  /** By SQL, in the harness: what the attacker would have made before. */
  prepare?: (stage: Stage) => Promise<Prepared>;
  /** In a process of its own at nice 10, until `tools.isOver`. */
  run: (tools: Tools) => Promise<void>;
  /** What the attacker gets at least, per second on average: well below what was measured. With less, the attack did not happen. */
  least: Counts;
  /** Right after it; what it returns did not hold. */
  expect?: (seen: Seen) => string[];
}

/** What an attack can look at afterwards. */
export interface Seen {
  counts: Counts;
  /** Requests of the victims, and those of them that wrote something. */
  victims: number;
  victimsWrites: number;
  lines: readonly { level: string; text: string }[];
  /** How many cores the shop and its database kept busy, from one second after the end of the attack to two. */
  busyCores: number;
  before: Readings;
  after: Readings;
}

/** Numbers that are read before and after each attack. */
export interface Readings {
  /** Of the three databases together. */
  databaseBytes: number;
  /** Lines of all nodes' metrics. */
  metricLines: number;
}

/** A row that is no load: what has to hold is looked at once. */
export interface Check {
  row: string;
  name: string;
  /** @returns what did not hold */
  check: (stage: Stage) => Promise<string[]>;
}

/** A row that another test shows. */
export interface Pointer {
  row: string;
  name: string;
  shownBy: string;
}
