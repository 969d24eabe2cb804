import { chance, int, pick, type Random } from "./values";

export type Person = "nobody" | "seller" | "buyer" | "admin" | "changer";

export interface Account {
  id: number;
  email: string;
  password: string;
  token: string;
}

interface Product {
  id: number;
  etag: string;
}

const MOST = 300;

/** The ids, tokens and cursors that requests are made of. It learns from responses; what it starts with is never given away. */
export class World {
  readonly products: Product[] = [];
  readonly orders: Product[] = [];
  /** The buyer's, and final. */
  rejectedId = 0;
  readonly outbox: number[] = [];
  readonly parked: number[] = [];
  /** People whom nobody logs in as, but to try it. */
  readonly strangers: Pick<Account, "id" | "email" | "password">[] = [];
  readonly refreshTokens: string[] = [];
  readonly keys: { key: string; body: unknown }[] = [];
  /** The next pages of lists, by operation and by who was shown the page before. */
  readonly pages = new Map<string, string[]>();

  constructor(readonly accounts: Readonly<Record<Exclude<Person, "nobody">, Account>>) {}

  tokenOf(person: Person): string | undefined {
    return person === "nobody" ? undefined : this.accounts[person].token;
  }

  /** An id for the path of an operation. */
  idFor(line: string, random: Random): string {
    const [, path = ""] = line.split(" ");
    if (line === "DELETE /products/{id}") return String((this.products.length > 20 ? this.products.pop() : undefined)?.id ?? 999_999);
    if (path.startsWith("/products")) return String(pick(random, this.products).id);
    if (path.startsWith("/orders")) return String(chance(random, 0.1) ? this.rejectedId : pick(random, this.orders).id);
    if (line === "POST /admin/outbox/{id}/replay" && chance(random, 0.5)) return String(this.parked.pop() ?? pick(random, this.outbox));
    if (path.startsWith("/admin/outbox")) return String(pick(random, this.outbox));
    if (path.startsWith("/admin/users")) return String(pick(random, this.strangers).id);
    return String(int(random, 1_000_000, 2_000_000));
  }

  remember<T>(list: T[], one: T): void {
    if (list.length >= MOST) list.splice(int(Math.random, 5, list.length - 1), 1);
    list.push(one);
  }
}
