import { spawnSync } from "node:child_process";
import { ROOT } from "../../../testkit/repository";

it("the client's types are those of the routes that are served", () => {
  // In a separate process, since Jest can't load ES modules.
  const { status, stderr } = spawnSync(process.execPath, ["--import", "tsx", "test/openapi/client-types.ts", "--check"], {
    cwd: ROOT,
    encoding: "utf8",
  });
  expect([status, stderr]).toEqual([0, ""]);
});
