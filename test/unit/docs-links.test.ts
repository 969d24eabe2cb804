import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";

const ROOT = path.resolve(__dirname, "../..");
const files = execFileSync("git", ["ls-files", "*.md"], { cwd: ROOT, encoding: "utf8" }).split("\n").filter(Boolean);
const contentOf = (file: string): string => readFileSync(path.join(ROOT, file), "utf8");

/** The anchor that GitHub gives a heading. */
const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, "")
    .replaceAll(" ", "-");
const anchorsOf = (markdown: string): string[] => [...markdown.matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) => anchorOf(heading));

it.each(files)("every link in %s leads to a file, and to a heading in it", (file) => {
  const broken = [...contentOf(file).matchAll(/\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)/g)].filter(([, target = "", anchor]) => {
    const linked = target === "" ? file : path.join(path.dirname(file), target);
    if (!existsSync(path.join(ROOT, linked))) return true;
    return anchor !== undefined && linked.endsWith(".md") && !anchorsOf(contentOf(linked)).includes(anchor);
  });
  expect(broken.map(([link]) => link)).toEqual([]);
});

it("an order can be followed through at most twelve files, listed in docs/architecture.md", () => {
  const [, section = ""] = /\n## How an order is processed\n(.*?)\n## /s.exec(contentOf("docs/architecture.md")) ?? [];
  const listed = new Set([...section.matchAll(/\]\(\.\.\/([^)]+\.ts)\)/g)].map(([, target]) => target));
  expect(listed.size).toBeGreaterThan(6);
  expect(listed.size).toBeLessThanOrEqual(12);
});
