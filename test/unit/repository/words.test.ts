import { execFileSync } from "node:child_process";
import ts from "typescript";
import { ROOT, textOf } from "../../../testkit/repository";

/** Phrases that comments, messages and documents once used in senses of their own, with the usual terms. */
const BANNED: readonly [RegExp, string][] = [
  [/\b(is|are|was|were|be|been) told\b/i, "is notified, reported, returned"],
  [/\bask(s|ed|ing)? again\b/i, "retry, republish"],
  [/\b(not|no) any ?more\b|\bany more\b/i, "no longer"],
  [/\bwho(so)?ever\b/i, "name who it is"],
  [/\bunder way\b/i, "in progress, in flight"],
  [/\b(is|are|was|were) away\b/i, "unavailable"],
  [/\bannounce(d|s|ments?)?\b/i, "publish, outbox row, message"],
  [/\bof then\b/i, "at that time"],
  [/\bwish(es)?\b/i, "request"],
  [/\b(hears?|heard) (of|from)\b/i, "subscribes, receives, is notified"],
  [/\bgather(s|ed|ing)?\b/i, "batch"],
  [/\btravel(s|led)? together\b/i, "are batched"],
  [/\bcan't answer\b/i, "is unavailable"],
  [/\bwhat waits\b/i, "pending, queued"],
  [/\bwhose time is over\b|\bits time is over\b/i, "deadline passed"],
  [/\bby (itself|themselves)\b/i, "on its own, individually"],
  [/(^|[*:.] )Most (bytes|characters|connections|deliveries|errors|items|lists|lines of all|rows|sessions|units) /m, "maximum number of"],
  [/\bstock\s+transporter\b/i, "Moleculer's own transporter"],
  [/\blast\s+release\b/i, "previous release"],
];

/** Machine-written tables, generated results, and this list. */
const EXEMPT = /^(test\/unit\/repository\/words\.test\.ts|docs\/(protocol|performance)\/|package-lock\.json)/;

const files = execFileSync("git", ["ls-files", "*.ts", "*.md", "*.yml", "*.mjs", "*.js", ".ci/run", "Dockerfile", ".env.example"], {
  cwd: ROOT,
  encoding: "utf8",
})
  .split("\n")
  .filter((file) => file !== "" && !EXEMPT.test(file));

/** The prose of a file: all of it, or of TypeScript the comments and the contents of strings, each with its line. */
function proseOf(file: string): [line: number, text: string][] {
  const content = textOf(file);
  if (!file.endsWith(".ts")) return content.split("\n").map((text, i) => [i + 1, text]);
  const source = ts.createSourceFile(file, content, ts.ScriptTarget.Latest, true);
  const prose: [number, string][] = [];
  const lineAt = (position: number): number => source.getLineAndCharacterOfPosition(position).line + 1;
  const comments = new Set<number>();
  const visit = (node: ts.Node): void => {
    for (const { pos, end } of ts.getLeadingCommentRanges(content, node.pos) ?? []) {
      if (comments.has(pos)) continue;
      comments.add(pos);
      prose.push([lineAt(pos), content.slice(pos, end).replace(/\s*\n\s*\*?\s*/g, " ")]);
    }
    if (ts.isStringLiteralLike(node) || ts.isTemplateHead(node) || ts.isTemplateMiddleOrTemplateTail(node))
      prose.push([lineAt(node.getStart()), node.text]);
    node.forEachChild(visit);
  };
  visit(source);
  source.endOfFileToken.forEachChild(visit);
  return prose;
}

it("comments, messages and documents use the usual terms", () => {
  const found = files.flatMap((file) =>
    proseOf(file).flatMap(([line, text]) =>
      BANNED.flatMap(([phrase, instead]) => {
        const match = phrase.exec(text);
        return match ? [`${file}:${line}: "${match[0]}": say ${instead}`] : [];
      }),
    ),
  );
  expect(found).toEqual([]);
});
