import { existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { ROOT } from "../../../testkit/repository";

const exists = (...file: string[]): boolean => existsSync(path.join(ROOT, ...file));

/** Folders that the path of a test leaves out: test/unit/orders/order.test.ts tests services/orders/order.ts. */
const LEFT_OUT = ["", "services", "test"];

it("each unit test outside of test/unit/repository has the path of the file or folder that it tests", () => {
  const tests = readdirSync(path.join(ROOT, "test/unit"), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".test.ts") && !file.startsWith("repository/"))
    .map((file) => file.replace(/\.test\.ts$/, ""));
  expect(tests.filter((test) => !LEFT_OUT.some((folder) => exists(folder, `${test}.ts`) || exists(folder, test)))).toEqual([]);
  expect(tests.length).toBeGreaterThan(30);
});

it("each folder of test/service has the name of a service or of a folder that its tests test", () => {
  const folders = readdirSync(path.join(ROOT, "test/service"), { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? entry.name : [],
  );
  expect(folders.filter((folder) => !exists(folder) && !exists("services", folder))).toEqual([]);
  expect(folders.length).toBeGreaterThan(3);
});
