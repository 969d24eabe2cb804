import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { format, resolveConfig } from "prettier";

/** A section of a document: the name of its runs, and the npm script that writes it. */
interface Section {
  runs: string;
  script: string;
}
const FAULT_RUNS: Section = { runs: "fault runs", script: "chaos" };

/** The lines around the section. A file that doesn't exist yet will contain only the section. */
const markers = ({ runs, script }: Section): [string, string] => [
  `<!-- ${runs}: written by npm run ${script} -- --report -->`,
  `<!-- end of ${runs} -->`,
];

/** Checks the file before a run of many minutes. @throws if it has no place for the report */
export function checkReport(file: string, section = FAULT_RUNS): void {
  split(file, section);
}

/** Writes the table of a run into a document, with the command that reproduces it. */
export async function writeReport(
  file: string,
  seconds: number,
  head: readonly string[],
  rows: readonly string[][],
  section = FAULT_RUNS,
): Promise<void> {
  const [before, after] = split(file, section);
  const [begin, end] = markers(section);
  const line = (cells: readonly string[]): string => `| ${head.map((_, i) => cells[i] ?? "").join(" | ")} |`;
  const options = process.argv
    .slice(2)
    .join(" ")
    .replace(/ ?--report[= ]\S+/, "");
  const text = [
    before + begin,
    "",
    `\`npm run ${section.script}${options === "" ? "" : ` -- ${options.trim()}`}\`, ${new Date().toISOString().slice(0, 10)}: ${seconds} s on ${availableParallelism()} cores.`,
    "",
    line(head),
    line(head.map((_, i) => (i === 1 ? ":--" : "--:"))),
    ...rows.map(line),
    "",
    end + after,
  ].join("\n");
  writeFileSync(file, await format(text, { ...(await resolveConfig(file)), parser: "markdown" }));
}

/** @returns the text before and after the section */
function split(file: string, section: Section): [string, string] {
  if (!existsSync(file)) return ["", "\n"];
  const text = readFileSync(file, "utf8");
  const [first, last] = markers(section);
  const [begin, end] = [text.indexOf(first), text.indexOf(last)];
  if (begin < 0 || end < begin) throw new Error(`${file} has no lines "${first}" and "${last}" to put the report between`);
  return [text.slice(0, begin), text.slice(end + last.length)];
}
