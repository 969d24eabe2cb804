import type { DatabaseName } from "../../config";
import type { Timed } from "./records";

/** A database was set back to the moment `from`, and lost what was committed between `from` and `until`. */
export interface Loss {
  readonly database: DatabaseName;
  from: number;
  until: number;
}

/** Losses of a load's writes in databases that were set back. */
export class Losses {
  private readonly all: Loss[] = [];
  /** Writes that succeeded and were lost later. They are reported, but are no violations. */
  readonly counts = { orders: 0, cancels: 0, adjustments: 0 };

  /** Whether a database was set back. */
  get hasAny(): boolean {
    return this.all.length > 0;
  }

  /** Starts a loss now. It stays open until `until` is set. */
  open(database: DatabaseName): Loss {
    const loss = { database, from: Date.now(), until: Infinity };
    this.all.push(loss);
    return loss;
  }

  /** Whether the write with these times may be lost. A write whose response came before the loss, or that was sent after it, may not. */
  mayHave(database: DatabaseName, { sentAt = 0, receivedAt = 0 }: Timed): boolean {
    return this.all.some((loss) => loss.database === database && receivedAt >= loss.from && sentAt <= loss.until);
  }
}
