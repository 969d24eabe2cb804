import tseslint from "typescript-eslint";

/** Layering: which files may not import which. */
const forbid = (files, groups, ignores = []) => ({
  files,
  ignores,
  rules: { "no-restricted-imports": ["error", { patterns: groups.map(([group, message]) => ({ group, message })) }] },
});

const services = [["**/services/**", "**/*.service"], "services never import each other: they call actions and emit events"];
const config = [["**/config"], "only services, scripts and moleculer.config read the configuration"];
const mixins = [["**/mixins/**"], "mixins build on broker and contracts, not the other way round"];
const broker = [["**/broker/**"], "contracts import nothing but each other"];
const node = [["node:*", "!node:crypto", "moleculer*", "sequelize", "pg"], "pure files import only contract types and node:crypto, for hashes"];

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
  forbid(["contracts/**/*.ts"], [services, config, mixins, broker, node]),
  forbid(["broker/**/*.ts"], [services, config, mixins]),
  forbid(["mixins/**/*.ts"], [services, config]),
  // Pure decisions.
  forbid(["services/orders/order.ts", "services/products/stock.ts"], [services, config, mixins, broker, node]),
  // Stores may use SQL and pure files.
  forbid(["services/**/*.store.ts"], [config, [["moleculer*"], "a store knows the database, not the broker"]]),
  ...["api", "users", "products", "orders"].map((name) => ({
    files: [`services/${name}/*.service.ts`],
    rules: {
      "no-restricted-imports": [
        "error",
        {
          patterns: [
            {
              group: ["api", "users", "products", "orders"].filter((other) => other !== name).map((other) => `../${other}/**`),
              message: services[1],
            },
          ],
        },
      ],
    },
  })),
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
