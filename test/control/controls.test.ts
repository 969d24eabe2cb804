import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { RabbitMQ } from "../../testkit/rabbitmq";
import { ROOT } from "../../testkit/repository";

const FOUND = "The control's violations were detected, as expected.";

let child: ChildProcess | undefined;

/** Not skipped on CI, where a missing RabbitMQ is a mistake and must fail. */
const skipped = !RabbitMQ.isInstalled() && !process.env.CI;
if (skipped) console.warn("skipped: the controls need Debian's rabbitmq-server, which is not installed");

async function chaos(...options: string[]): Promise<{ code: number | null; output: string }> {
  const run = spawn(process.execPath, ["--import", "tsx", "test/chaos/main.ts", ...options], {
    cwd: ROOT,
    stdio: ["ignore", "pipe", "pipe"],
  });
  child = run;
  let output = "";
  for (const stream of [run.stdout, run.stderr])
    stream.on("data", (chunk: Buffer) => {
      output += chunk.toString();
      process.stderr.write(chunk); // show progress, since a run takes minutes
    });
  const [code] = (await once(run, "close")) as [number | null];
  return { code, output };
}

/** A harness that can't detect violations proves nothing when it finds none. */
describe("the fault runs find violations", () => {
  afterEach(async () => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGTERM"); // it stops everything that it has started
    await once(child, "close");
  }, 60_000);

  (skipped ? it.skip : it).each([
    ["if events without a reply are not republished", "--without-republishing"],
    ["with Moleculer's own AMQP transporter", "--moleculer-transporter"],
  ])(
    "%s",
    async (_where, option) => {
      const { code, output } = await chaos(option);
      expect(output).toContain(FOUND);
      expect(code).toBe(0);
    },
    240_000,
  );
});
