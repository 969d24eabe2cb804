import type { Documentation } from "../support/openapi";
import { lineOf } from "./judge";
import type { FuzzRequest } from "./request";

/** Nothing that a client sends by itself leads to these. */
const NOT_PROVOKED = new Set(["429", "500", "503"]);

/** LAST_ADMIN: were there another admin by chance, the one who sends all these would be shut out. */
const NOT_TRIED = new Set(["PATCH /admin/users/{id}: 409"]);

/** Which responses each operation has given. */
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

  /** How often each operation was asked, how often it did what was asked, and all that it responded with. */
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

  /** The documented responses that no request has led to. */
  missing(): string[] {
    return this.documentation.lines.flatMap((line) =>
      Object.keys(this.documentation.operation(line).responses)
        .filter((status) => !NOT_PROVOKED.has(status) && !this.statuses.get(line)?.has(Number(status)))
        .map((status) => `${line}: ${status}`)
        .filter((one) => !NOT_TRIED.has(one)),
    );
  }
}
