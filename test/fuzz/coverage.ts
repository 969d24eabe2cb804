import type { Documentation } from "../../testkit/openapi";
import { lineOf } from "./judge";
import type { FuzzRequest } from "./request";

/** Statuses that no request alone leads to. */
const NOT_PROVOKED = new Set(["429", "500", "503"]);

/**
 * LAST_ADMIN isn't tried: if there happened to be another admin, the requests would lock out the admin that sends them. A key in flight
 * needs two requests at the same moment; the other routes with keys have more reasons for a 409.
 */
const NOT_TRIED = new Set(["PATCH /admin/users/{id}: 409", "POST /products: 409"]);

/** The statuses of each operation's responses. */
export class Coverage {
  private readonly statuses = new Map<string, Map<number, number>>();

  constructor(private readonly documentation: Documentation) {}

  count(request: FuzzRequest, status: number): void {
    const line = lineOf(this.documentation, request);
    if (line === undefined) return;
    const seen = this.statuses.get(line) ?? new Map<number, number>();
    this.statuses.set(line, seen);
    seen.set(status, (seen.get(status) ?? 0) + 1);
  }

  /** Per operation: the number of requests, the share of successful ones, and all statuses. */
  table(): string {
    return this.documentation.lines
      .map((line) => {
        const seen = [...(this.statuses.get(line) ?? [])].toSorted(([a], [b]) => a - b);
        const all = seen.reduce((sum, [, times]) => sum + times, 0);
        const good = seen.reduce((sum, [status, times]) => sum + (status < 300 ? times : 0), 0);
        const share = all === 0 ? "-" : `${Math.round((100 * good) / all)} %`;
        return `${line.padEnd(34)}${String(all).padStart(6)}${share.padStart(7)} 2xx  ${seen.map(([status, times]) => `${status}: ${times}`).join(", ")}`;
      })
      .join("\n");
  }

  /** Documented responses that did not occur. */
  missing(): string[] {
    return this.documentation.lines.flatMap((line) =>
      Object.keys(this.documentation.operation(line).responses)
        .filter((status) => !NOT_PROVOKED.has(status) && !this.statuses.get(line)?.has(Number(status)))
        .map((status) => `${line}: ${status}`)
        .filter((one) => !NOT_TRIED.has(one)),
    );
  }
}
