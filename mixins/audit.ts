import type { AuditCheck } from "../contracts/products";
import type { Database } from "./database";

/** How many violations are listed; all are counted. */
const SAMPLE = 10;

/** Milliseconds for one check: checks read whole tables. */
const CHECK_TIMEOUT_MS = 60_000;

/**
 * Runs checks in one snapshot of a database. Each check is a name and a select that finds violations of an invariant and describes them in
 * one text column, `what`.
 */
export function runChecks(db: Database, checks: Readonly<Record<string, string>>): Promise<AuditCheck[]> {
  return db.snapshot(CHECK_TIMEOUT_MS, async (query) => {
    const results: AuditCheck[] = [];
    for (const [name, sql] of Object.entries(checks)) {
      const found = await query<{ what: string; n: number }>(
        `select what, count(*) over () as n from (${sql}) as violations limit ${SAMPLE}`,
      );
      results.push(
        auditCheck(
          name,
          found.map((row) => row.what),
          found[0]?.n ?? 0,
        ),
      );
    }
    return results;
  });
}

export const auditCheck = (name: string, found: readonly string[], violations = found.length): AuditCheck => ({
  name,
  ok: violations === 0,
  violations,
  sample: found.slice(0, SAMPLE),
});
