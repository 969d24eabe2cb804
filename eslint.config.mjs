import { readdirSync, readFileSync } from "node:fs";
import tseslint from "typescript-eslint";

/** Every service has a folder. */
const SERVICES = readdirSync(new URL("services", import.meta.url));

/*
 * Layering: which files may not import which. If two entries match a file, the later one replaces the rule of the earlier one, so the
 * entries below don't overlap.
 */
const forbid = (files, groups, ignores = []) => ({
  files,
  ignores,
  rules: {
    "no-restricted-imports": [
      "error",
      { patterns: groups.map(([group, message, importNames]) => ({ group, message, ...(importNames && { importNames }) })) },
    ],
  },
});

const services = [["**/services/**", "**/*.service"], "services never import each other: they call actions and emit events"];
const config = [["**/config"], "only services, scripts and moleculer.config read the configuration"];
const mixins = [["**/mixins/**"], "mixins build on broker and contracts, not the other way round"];
const broker = [["**/broker/**"], "contracts import nothing but each other"];
const node = [
  ["node:*", "!node:crypto", "moleculer*", "sequelize", "pg"],
  "pure files import only contract types and node:crypto, for hashes",
];
const tests = [["**/test/**", "**/testkit/**", "**/bench/**"], "the shop does not depend on its tests"];
const suites = [["**/test/**"], "what tests and benchmarks share is in the testkit"];
const benchmarks = [["**/bench/**"], "what tests and benchmarks share is in the testkit"];
const outside = [["**/scripts/**", "**/moleculer.config"], "scripts start services, not the other way round"];
const http = [["**/broker/errors"], "a store returns a result, and its service decides on the HTTP error", ["problem", "tooLate"]];
/** Those in contracts have the restrictions of all contracts. */
const pure = JSON.parse(readFileSync(new URL("pure.json", import.meta.url), "utf8"));

/** The entries for one service: its stores, its pure files, and all others. */
function service(name) {
  const others = SERVICES.filter((other) => other !== name)
    .map((other) => [`../${other}/**`, `../../${other}/**`])
    .flat();
  const own = [[[...others, "**/services/**"], services[1]], tests, outside];
  const folder = `services/${name}`;
  const [stores, decisions] = [`${folder}/**/*.store.ts`, pure.filter((file) => file.startsWith(`${folder}/`))];
  return [
    forbid([`${folder}/**/*.ts`], own, [stores, ...decisions]),
    forbid([stores], [...own, config, http, [["moleculer*"], "a store knows the database, not the broker"]]),
    ...(decisions.length > 0 ? [forbid(decisions, [...own, config, mixins, broker, node])] : []),
  ];
}

export default tseslint.config(
  { ignores: ["**/dist/**", "client/src/schema.ts", "node_modules/**", ".data/**", "coverage/**", "jest.config.js", "eslint.config.mjs"] },
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
      "@typescript-eslint/consistent-type-imports": "error",
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true, ignoreVoidOperator: true }],
      "@typescript-eslint/no-unnecessary-type-parameters": "off",
      "no-empty": "error",
      eqeqeq: "error",
    },
  },
  forbid(["contracts/**/*.ts"], [services, config, mixins, broker, node, tests, outside]),
  forbid(["broker/**/*.ts"], [services, config, mixins, tests, outside]),
  forbid(["mixins/**/*.ts"], [services, config, tests, outside]),
  forbid(["scripts/**/*.ts", "*.ts"], [tests]),
  forbid(["testkit/**/*.ts"], [suites, benchmarks]),
  forbid(["bench/**/*.ts"], [suites]),
  forbid(["test/**/*.ts"], [benchmarks]),
  ...SERVICES.flatMap(service),
  {
    files: ["test/**/*.ts"],
    rules: {
      "@typescript-eslint/no-explicit-any": "off",
      "@typescript-eslint/no-unsafe-call": "off",
      "@typescript-eslint/no-unsafe-assignment": "off",
      "@typescript-eslint/no-unsafe-member-access": "off",
      "@typescript-eslint/unbound-method": "off",
      "@typescript-eslint/no-non-null-assertion": "off",
    },
  },
);
