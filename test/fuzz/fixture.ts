import { testId } from "../../testkit/ids";
import { chance, int, pick, type Random } from "./values";

export type Person = "nobody" | "seller" | "buyer" | "admin" | "changer";

export interface Account {
  id: string;
  email: string;
  password: string;
  token: string;
}

interface Product {
  id: string;
  etag: string;
}

const MAX = 300;
const NOBODY = testId(999_999);

/** An id, sometimes in upper case, which must be accepted (RFC 9562, 4). */
export const inAnyCase = (id: string, random: Random): string => (chance(random, 0.1) ? id.toUpperCase() : id);

/** The ids, tokens and cursors that requests use. It learns more from responses and always keeps the first ones. */
export class Fixture {
  readonly products: Product[] = [];
  readonly orders: Product[] = [];
  /** A rejected order of the buyer. */
  rejectedId = "";
  readonly outbox: number[] = [];
  readonly parked: number[] = [];
  /** Accounts that are used only to test logins. */
  readonly loginAccounts: Pick<Account, "id" | "email" | "password">[] = [];
  readonly refreshTokens: string[] = [];
  /** Successful requests with an Idempotency-Key. */
  readonly keyed: { line: string; path: string; key: string; body: unknown }[] = [];
  /** Links to next pages of lists, by operation and by the user that got the link. */
  readonly pages = new Map<string, string[]>();

  constructor(readonly accounts: Readonly<Record<Exclude<Person, "nobody">, Account>>) {}

  tokenOf(person: Person): string | undefined {
    return person === "nobody" ? undefined : this.accounts[person].token;
  }

  /** An id for the path of an operation. */
  idFor(line: string, random: Random): string {
    const [, path = ""] = line.split(" ");
    if (line === "POST /admin/outbox/{id}/replay" && chance(random, 0.5)) return String(this.parked.pop() ?? pick(random, this.outbox));
    if (path.startsWith("/admin/outbox")) return String(pick(random, this.outbox));
    return inAnyCase(this.uuidFor(line, random), random);
  }

  private uuidFor(line: string, random: Random): string {
    const [, path = ""] = line.split(" ");
    if (line === "DELETE /products/{id}") return (this.products.length > 20 ? this.products.pop() : undefined)?.id ?? NOBODY;
    if (path.startsWith("/products")) return pick(random, this.products).id;
    if (path.startsWith("/orders")) return chance(random, 0.1) ? this.rejectedId : pick(random, this.orders).id;
    return path.startsWith("/admin/users") ? pick(random, this.loginAccounts).id : NOBODY;
  }

  remember<T>(list: T[], one: T): void {
    if (list.length >= MAX) list.splice(int(Math.random, 5, list.length - 1), 1);
    list.push(one);
  }
}
