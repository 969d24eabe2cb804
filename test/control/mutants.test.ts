import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { MUTANTS } from "../mutants/mutants";
import type { Verdict } from "../mutants/run";
import { SCENARIOS, type Scenario } from "../mutants/scenarios";
import { SourceCopy } from "../mutants/source-copy";

const ALL = Object.keys(SCENARIOS) as Scenario[];
const RUN_MS = 60_000;
const ALL_MS = 120_000;

let copy: SourceCopy;
let child: ChildProcess | undefined;

/** Runs scenarios in a separate process, against the shop in the copy's current state. */
async function run(scenarios: readonly Scenario[], timeout: number): Promise<Verdict[]> {
  const run = spawn(process.execPath, ["--import", "tsx", "test/mutants/run.ts", ...scenarios], {
    cwd: copy.folder,
    env: { ...process.env, NODE_COMPILE_CACHE: path.join(copy.folder, "compile-cache") },
    stdio: ["ignore", "pipe", "inherit"],
    timeout,
  });
  child = run;
  let output = "";
  run.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const [code] = (await once(run, "close")) as [number | null];
  if (code !== 0) throw new Error(`the scenarios' process exited with ${code ?? "a signal"} after: ${output}`);
  return output
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Verdict);
}

beforeAll(async () => {
  copy = await SourceCopy.create();
});
afterEach(() => child?.kill());
afterAll(() => copy.remove());

/** A check that finds nothing in a faulty shop proves nothing when it finds nothing in a correct one. */
describe("the checks of histories", () => {
  it(
    "find nothing in a correct shop",
    async () => {
      const verdicts = await run(ALL, ALL_MS - 5_000);
      expect(verdicts).toEqual(ALL.map((scenario) => ({ scenario, violations: [] })));
    },
    ALL_MS,
  );

  it.each(MUTANTS.map((mutant) => [mutant.name, mutant] as const))(
    "find that %s",
    async (_name, { scenario, foundBy, replacements }) => {
      const [verdict] = await copy.with(replacements, () => run([scenario], RUN_MS - 5_000));
      console.info(verdict?.violations.join("\n"));
      expect(verdict?.violations).toContainEqual(expect.stringMatching(`^${foundBy}: `));
    },
    RUN_MS,
  );
});
