import type { DatabaseName } from "../../config";
import type { Timed } from "./records";

/** A database fell back to the moment `from`, and has lost what was committed to it until the moment `until`. */
export interface Loss {
  readonly database: DatabaseName;
  from: number;
  until: number;
}

/** What of a load is lost, since databases fell back. */
export class Losses {
  private readonly all: Loss[] = [];
  /** What was answered and then was not there: no violation, but to be known. */
  readonly counts = { orders: 0, cancels: 0, adjustments: 0 };

  /** Whether a database has fallen back. */
  get any(): boolean {
    return this.all.length > 0;
  }

  /** From now on, until its end is set. */
  open(database: DatabaseName): Loss {
    const loss = { database, from: Date.now(), until: Infinity };
    this.all.push(loss);
    return loss;
  }

  /** Whether what had this response may have been committed to what is lost. Whatever was answered before it, or asked for after it, may not. */
  mayHave(database: DatabaseName, { sent = 0, answered = 0 }: Timed): boolean {
    return this.all.some((loss) => loss.database === database && answered >= loss.from && sent <= loss.until);
  }
}
