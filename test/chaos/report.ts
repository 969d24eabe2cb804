import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { format, resolveConfig } from "prettier";

/** What stands between these lines of a document is a run's; a file that isn't there yet is all a run's. */
const BEGIN = "<!-- fault runs: written by npm run chaos -- --report -->";
const END = "<!-- end of fault runs -->";

/** @throws before minutes have been spent for a report that nothing can be done with */
export function checkReport(file: string): void {
  split(file);
}

/** Puts the table of a run into a document, with the command that makes another one. */
export async function writeReport(file: string, seconds: number, head: readonly string[], rows: readonly string[][]): Promise<void> {
  const [before, after] = split(file);
  const line = (cells: readonly string[]): string => `| ${head.map((_, i) => cells[i] ?? "").join(" | ")} |`;
  const options = process.argv
    .slice(2)
    .join(" ")
    .replace(/ ?--report[= ]\S+/, "");
  const text = [
    before + BEGIN,
    "",
    `\`npm run chaos${options === "" ? "" : ` -- ${options.trim()}`}\`, ${new Date().toISOString().slice(0, 10)}: ${seconds} s on ${availableParallelism()} cores.`,
    "",
    line(head),
    line(head.map((_, i) => (i === 1 ? ":--" : "--:"))),
    ...rows.map(line),
    "",
    END + after,
  ].join("\n");
  writeFileSync(file, await format(text, { ...(await resolveConfig(file)), parser: "markdown" }));
}

/** @returns what stands before and after a run's part */
function split(file: string): [string, string] {
  if (!existsSync(file)) return ["", "\n"];
  const text = readFileSync(file, "utf8");
  const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`${file} has no lines "${BEGIN}" and "${END}" for a report to stand between`);
  return [text.slice(0, begin), text.slice(end + END.length)];
}
