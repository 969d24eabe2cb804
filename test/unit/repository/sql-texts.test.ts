import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import * as ts from "typescript";
import { ROOT } from "../../../testkit/repository";

/*
 * The result of a prepared statement must keep its columns: if a migration adds one, `select *` fails on each connection that has prepared it.
 */

const FOLDERS = ["services", "mixins"];
/** The inner `*` of this statement come from queries that name their columns. */
const INNER_ALLOWED = "mixins/outbox.ts";

/** The part of a text outside all parentheses, which is the outer statement. */
function outer(text: string): string {
  let depth = 0;
  let kept = "";
  for (const character of text) {
    if (character === "(") depth++;
    else if (character === ")") depth--;
    else if (depth === 0) kept += character;
  }
  return kept;
}

/** Every string in a file that contains SQL, with `?` in place of inserted values. */
function statements(file: string, source: string): string[] {
  const texts: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isStringLiteralLike(node)) texts.push(node.text);
    if (ts.isTemplateExpression(node)) texts.push([node.head.text, ...node.templateSpans.map((span) => span.literal.text)].join("?"));
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile(file, source, ts.ScriptTarget.Latest, true));
  return texts.filter((text) => /\b(select|returning)\b/i.test(text)).map((text) => text.replace(/--.*$/gm, ""));
}

const STAR = /\b(select|returning)\s+(all\s+|distinct\s+(on\s*\([^)]*\)\s*)?)?\*|(select|returning|,)\s*\w+\.\*/i;
/** A whole row as one value. */
const WHOLE_ROW = /\b(row_to_json|to_jsonb?|jsonb?_agg|array_agg)\s*\(\s*[a-z_]\w{0,2}\s*\)/i;

const files = FOLDERS.flatMap((folder) =>
  readdirSync(path.join(ROOT, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => path.join(folder, name)),
);

it("no statement of services and mixins selects all columns of a table", () => {
  const found = files.flatMap((file) =>
    statements(file, readFileSync(path.join(ROOT, file), "utf8"))
      .map((text) => (file === INNER_ALLOWED ? outer(text) : text))
      .filter((text) => STAR.test(text) || WHOLE_ROW.test(text))
      .map((text) => `${file}: ${text.trim().slice(0, 100)}`),
  );
  expect(found).toEqual([]);
  expect(files.length).toBeGreaterThan(50);
});

it.each([
  ["db.query(`select * from orders`)", true],
  ["db.query(`insert into orders (id) values ($1) returning *`)", true],
  ["db.query(`with o as (update orders set n = 1 returning id) select o.*, 1 from o`)", true],
  ["db.query(`select k.n, same.* from (${SELECT}) as same`)", true],
  ["db.query('select to_jsonb(o) from orders o')", true],
  ["db.query(`select id, count(*) from orders -- select *\n where total * 2 > 1 group by id`)", false],
  ["const where = ids.map((id) => id * 2)", false],
])("%j is reported: %s", (source, isFound) => {
  expect(statements("x.ts", source).some((text) => STAR.test(text) || WHOLE_ROW.test(text))).toBe(isFound);
});
