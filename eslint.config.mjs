import { readdirSync } from "node:fs";
import tseslint from "typescript-eslint";

/** Every service has a folder. */
const SERVICES = readdirSync(new URL("services", import.meta.url));

/*
 * Who may import what. A later entry for the same file would replace the rule, not add to it, so every file matches exactly one: no
 * entry's `files` overlap, or `ignores` takes out what a later one has.
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

const services = [["**/services/**", "**/*.service"], "services never import services: they call and emit"];
const config = [["**/config"], "only services, scripts and moleculer.config read the configuration"];
const mixins = [["**/mixins/**"], "mixins build on broker and contracts, not the other way round"];
const broker = [["**/broker/**"], "contracts import nothing but each other"];
const node = [["node:*", "!node:crypto", "moleculer*", "sequelize", "pg"], "pure files import nothing but contract types, and hashes"];
const tests = [["**/test/**", "**/bench/**"], "the shop knows nothing of its tests"];
const outside = [["**/scripts/**", "**/moleculer.config"], "scripts start services, not the other way round"];
const http = [["**/broker/errors"], "a store returns what it found, and its service decides the error of the API", ["problem", "tooLate"]];
const pure = ["order.ts", "stock.ts", "accounts.ts", "key-times.ts"];

/** The files of one service, which know nothing of the other services. */
function service(name) {
  const others = SERVICES.filter((other) => other !== name).map((other) => `../${other}/**`);
  const own = [[[...others, "**/services/**"], services[1]], tests, outside];
  const folder = `services/${name}`;
  const [stores, decisions] = [`${folder}/**/*.store.ts`, pure.map((file) => `${folder}/${file}`)];
  return [
    forbid([`${folder}/**/*.ts`], own, [stores, ...decisions]),
    forbid([stores], [...own, config, http, [["moleculer*"], "a store knows the database, not the broker"]]),
    forbid(decisions, [...own, config, mixins, broker, node]),
  ];
}

export default tseslint.config(
  { ignores: ["dist/**", "node_modules/**", ".data/**", "coverage/**", "jest.config.js", "eslint.config.mjs"] },
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
