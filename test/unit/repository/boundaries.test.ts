import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { SERVICES } from "../../../config";
import pure from "../../../pure.json";
import { ROOT } from "../../../testkit/repository";

/** ESLint's configuration is a module, which jest's sandbox can't import: another process asks it which of these imports it refuses. */
const LINT = `
  import { ESLint, Linter } from "eslint";
  const eslint = new ESLint(), linter = new Linter();
  const cases = JSON.parse(process.argv[1]);
  const refused = [];
  for (const [file, source, name] of cases) {
    const { rules } = await eslint.calculateConfigForFile(file);
    const code = "import { " + name + " } from \\"" + source + "\\"; " + name + ";";
    const found = linter.verify(code, { rules: { "no-restricted-imports": rules["no-restricted-imports"] ?? "off" } });
    refused.push(found.length > 0);
  }
  console.log(JSON.stringify(refused));
`;

type Case = readonly [file: string, source: string, name?: string];

/** @returns those of the cases that the linter lets pass */
function allowed(cases: readonly Case[]): string[] {
  const asked = JSON.stringify(cases.map(([file, source, name = "x"]) => [file, source, name]));
  const refused = JSON.parse(
    execFileSync(process.execPath, ["--input-type=module", "-e", LINT, asked], { cwd: ROOT, encoding: "utf8" }),
  ) as boolean[];
  return cases.flatMap(([file, source, name = ""], i) => (refused[i] ? [] : `${file} imports ${name} from ${source}`));
}

const filesOf = (folder: string): string[] =>
  readdirSync(path.join(ROOT, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .map((file) => `${folder}/${file}`);

/** The files, relative to the root and without their extension, that a file imports. */
const importsOf = (file: string): string[] =>
  [...readFileSync(path.join(ROOT, file), "utf8").matchAll(/ from "(\.[^"]*)"/g)].map(([, target = ""]) =>
    path.join(path.dirname(file), target),
  );

describe("lint", () => {
  const files = filesOf("services");
  const stores = files.filter((file) => file.endsWith(".store.ts"));
  const decisions = pure.filter((file) => file.startsWith("services/"));

  it("refuses an import of another service in every file of a service", () => {
    const cases = files.flatMap((file) =>
      SERVICES.filter((name) => !file.startsWith(`services/${name}/`)).map(
        (other) => [file, path.relative(path.dirname(file), `services/${other}/x`)] as const,
      ),
    );
    expect(cases.length).toBe(files.length * (SERVICES.length - 1));
    expect(allowed(cases)).toEqual([]);
  });

  it("refuses Moleculer, the configuration and errors of the API in every store", () => {
    expect(stores.length).toBeGreaterThan(5);
    expect(
      allowed(
        stores.flatMap(
          (file) =>
            [
              [file, "moleculer"],
              [file, "../../config"],
              [file, "../../broker/errors", "problem"],
            ] as const,
        ),
      ),
    ).toEqual([]);
  });

  it("refuses everything but contracts in files that decide", () => {
    expect(files).toEqual(expect.arrayContaining(decisions));
    const sources = ["pg", "moleculer", "node:fs", "../../config", "../../mixins/database", "../../broker/errors"];
    expect(allowed(decisions.flatMap((file) => sources.map((source) => [file, source] as const)))).toEqual([]);
  });

  it("refuses imports of what is built on a folder in that folder", () => {
    const upwards: readonly Case[] = [
      ...filesOf("contracts").flatMap((file) =>
        ["../broker/x", "../mixins/x", "../services/x/y", "../config"].map((from) => [file, from] as const),
      ),
      ...filesOf("broker").flatMap((file) => ["../mixins/x", "../services/x/y", "../config"].map((from) => [file, from] as const)),
      ...filesOf("mixins").flatMap((file) => ["../services/x/y", "../config", "../scripts/x"].map((from) => [file, from] as const)),
      ...files.flatMap((file) => ["../../test/x/y", "../../testkit/x"].map((from) => [file, from] as const)),
      ...filesOf("scripts").flatMap((file) => ["../bench/x", "../testkit/x"].map((from) => [file, from] as const)),
      ...filesOf("testkit").flatMap((file) => ["../test/x/y", "../bench/x"].map((from) => [file, from] as const)),
      ...filesOf("bench").map((file) => [file, "../test/x/y"] as const),
      ["test/flow/x.test.ts", "../../bench/x"],
    ];
    expect(allowed(upwards)).toEqual([]);
  });

  it("lets pass what each may import", () => {
    const cases: readonly Case[] = [
      ["services/orders/orders.service.ts", "../../contracts/products"],
      ["services/orders/orders.service.ts", "./read.store"],
      ["services/orders/outbox.store.ts", "../../mixins/outbox"],
      ["services/orders/order.ts", "../../contracts/products"],
      ["services/users/audit-log.store.ts", "../../broker/errors", "errorType"],
      ["testkit/shop.ts", "../services/api/api.service"],
      ["bench/shop.ts", "../testkit/until"],
      ["test/flow/x.test.ts", "../../testkit/until"],
    ];
    expect(allowed(cases)).toHaveLength(cases.length);
  });
});

it("a suite imports no other suite, except that unit tests and controls test the code of suites", () => {
  const found = filesOf("test").flatMap((file) => {
    const [, suite = ""] = file.split("/");
    if (suite === "unit" || suite === "control") return [];
    return importsOf(file)
      .filter((target) => target.startsWith("test/") && !target.startsWith(`test/${suite}/`))
      .map((target) => `${file} imports ${target}`);
  });
  expect(found).toEqual([]);
});

it("every folder in services is a service of the one list", () => {
  expect(readdirSync(path.join(ROOT, "services")).sort()).toEqual([...SERVICES].sort());
});

/** The nodes of a directed graph that can be reached from themselves. */
function inCircles(graph: ReadonlyMap<string, ReadonlySet<string>>): string[] {
  const reached = (node: string, seen = new Set<string>()): Set<string> => {
    for (const other of graph.get(node) ?? []) if (!seen.has(other)) reached(other, seen.add(other));
    return seen;
  };
  return [...graph.keys()].filter((node) => reached(node).has(node));
}

it("no file imports itself through others, not even for types", () => {
  const files = ["contracts", "broker", "mixins", "services", "testkit"].flatMap(filesOf);
  expect(files.length).toBeGreaterThan(150);
  expect(inCircles(new Map(files.map((file) => [file.replace(/\.ts$/, ""), new Set(importsOf(file))])))).toEqual([]);
});

it("the folders of services/api depend on each other in one direction", () => {
  const folderOf = (file: string): string => path.relative("services/api", path.dirname(file));
  const imports = new Map<string, Set<string>>();
  for (const file of filesOf("services/api")) {
    const folder = folderOf(file);
    for (const other of importsOf(file).map(folderOf))
      // the files at the top join all folders
      if (folder !== "" && other !== "" && other !== folder && !other.startsWith(".."))
        imports.set(folder, (imports.get(folder) ?? new Set()).add(other));
  }
  expect(imports.size).toBeGreaterThan(2);
  expect(inCircles(imports)).toEqual([]);
});
