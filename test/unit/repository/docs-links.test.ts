import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import { ROOT, textOf } from "../../../testkit/repository";

const files = execFileSync("git", ["ls-files", "*.md"], { cwd: ROOT, encoding: "utf8" }).split("\n").filter(Boolean);

/** The anchor that GitHub gives a heading. */
const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, "")
    .replaceAll(" ", "-");
const anchorsOf = (markdown: string): string[] => [...markdown.matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) => anchorOf(heading));

it.each(files)("every link in %s leads to a file, and to a heading in it", (file) => {
  const broken = [...textOf(file).matchAll(/\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)/g)].filter(([, target = "", anchor]) => {
    const linked = target === "" ? file : path.join(path.dirname(file), target);
    if (!existsSync(path.join(ROOT, linked))) return true;
    return anchor !== undefined && linked.endsWith(".md") && !anchorsOf(textOf(linked)).includes(anchor);
  });
  expect(broken.map(([link]) => link)).toEqual([]);
});

it("every test that a document names exists", () => {
  const named = files.flatMap((file) => [...textOf(file).matchAll(/\btest\/(?:unit|service|flow)\/[\w./-]*\w/g)].map(([test]) => test));
  expect(named.filter((test) => !["", ".ts", ".test.ts"].some((end) => existsSync(path.join(ROOT, test + end))))).toEqual([]);
  expect(named.length).toBeGreaterThan(50);
});

it("an order can be followed through at most twelve files, listed in docs/architecture.md", () => {
  const [, section = ""] = /\n## How an order is processed\n(.*?)\n## /s.exec(textOf("docs/architecture.md")) ?? [];
  const listed = new Set([...section.matchAll(/\]\(\.\.\/([^)]+\.ts)\)/g)].map(([, target]) => target));
  expect(listed.size).toBeGreaterThan(6);
  expect(listed.size).toBeLessThanOrEqual(12);
});
