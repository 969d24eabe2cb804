/** Files that decide and do nothing else: unit tests cover them, apart from branches that types rule out. ESLint restricts their imports. */
const PURE = require("./pure.json");

/** @type {import("jest").Config} */
module.exports = {
  testEnvironment: "node",
  roots: ["<rootDir>/test"],
  testMatch: ["**/*.test.ts"],
  // run with `npm run test:control`: these take minutes and both cores
  testPathIgnorePatterns: ["/node_modules/", "<rootDir>/test/control/"],
  transform: {
    "^.+\\.ts$": ["@swc/jest", { jsc: { parser: { syntax: "typescript" }, target: "es2022" }, module: { type: "commonjs" } }],
  },
  // the client is an ES module, whose imports have extensions
  moduleNameMapper: { "^\\./(follow|problem|retry|schema|session)\\.js$": "./$1" },
  globalSetup: "<rootDir>/testkit/global-setup.ts",
  globalTeardown: "<rootDir>/testkit/global-teardown.ts",
  testTimeout: 60_000,
  // for `npm run coverage`
  coverageProvider: "v8",
  collectCoverageFrom: PURE,
  coverageThreshold: Object.fromEntries(PURE.map((file) => [`./${file}`, { statements: 98, branches: 95, functions: 100, lines: 98 }])),
  maxWorkers: 2,
};
