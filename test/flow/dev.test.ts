import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { cp, mkdtemp, readFile, realpath, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { until } from "../../testkit/until";
import { freePorts } from "../../testkit/free-ports";
import { Client } from "../../testkit/client";
import { textOf, ROOT } from "../../testkit/repository";
import { createDatabases, dropDatabases, variablesOf, type TestDatabases } from "../../testkit/databases";
import { NO_LIMITS, uniqueNamespace } from "../../testkit/shop";

const DETAIL = "the e-mail address or the password is wrong";
let folder: string;
let databases: TestDatabases | undefined;
let child: ChildProcess | undefined;
let env: NodeJS.ProcessEnv;
let output = "";
let url = "";

/** `npm run dev` of a copy of the sources, which the tests may edit. */
beforeAll(async () => {
  folder = await realpath(await mkdtemp(path.join(tmpdir(), "shop-dev-")));
  const sources = [...textOf(".dockerignore").matchAll(/^!(.+)$/gm)].map(([, name]) => name!);
  for (const name of sources) await cp(path.join(ROOT, name), path.join(folder, name), { recursive: true });
  await symlink(path.join(ROOT, "node_modules"), path.join(folder, "node_modules"), "junction");
  const made = (databases = await createDatabases());
  const urls = variablesOf(made);
  const [port = 0] = await freePorts(1); // a reload has to listen on it again
  env = {
    PATH: process.env.PATH,
    HOME: folder,
    ...urls,
    ...NO_LIMITS,
    NAMESPACE: uniqueNamespace(),
    PORT: String(port),
    BCRYPT_COST: "4",
  };
  const started = (child = spawn(process.execPath, ["--import", "tsx", "scripts/dev.ts"], {
    cwd: folder,
    env,
  }));
  for (const stream of [started.stdout, started.stderr]) stream.on("data", (chunk: Buffer) => (output += chunk.toString()));
  await until("it is started", () => started.exitCode !== null || / started successfully /.test(output), 60_000);
  [, url = ""] = /listening on (http:\S+)/.exec(output) ?? [];
  expect({ url, output }).toEqual({ url: expect.stringMatching(/^http/), output: expect.any(String) });
}, 120_000);

afterAll(async () => {
  child?.kill("SIGKILL");
  await dropDatabases(databases);
  await rm(folder, { recursive: true, force: true });
});

/** How users responds to a wrong login: the detail, or the status if it doesn't respond. */
async function detail(): Promise<unknown> {
  const { status, body } = await new Client(url).post("/token", { email: "nobody@shop.test", password: "wrong password" });
  return status === 401 ? body["detail"] : status;
}
const isDetail = (expected: unknown) => async (): Promise<boolean> => (await detail()) === expected;

/** Replaces a file, as many editors save it. */
async function save(file: string, text: string): Promise<void> {
  await writeFile(`${file}.saved`, text);
  await rename(`${file}.saved`, file);
}

describe("npm run dev", () => {
  it.each<[how: string, write: (file: string, text: string) => Promise<void>]>([
    ["written in place", writeFile],
    ["replaced", save],
  ])("a file with a typo leaves its service as it was, and the right file is loaded (%s)", async (how, write) => {
    const file = path.join(folder, "services/users/logins.ts");
    const source = await readFile(file, "utf8");
    const before = await detail();
    expect(source).toContain(`"${String(before)}"`);
    const reports = (): number => output.split("users was not reloaded").length;
    const earlier = reports();
    await write(file, `${source}\nconst = typo;\n`);
    await until("the typo is reported", () => reports() > earlier);
    expect(await detail()).toBe(before);
    const after = `${DETAIL} (${how})`;
    await write(file, source.replace(`"${String(before)}"`, `"${after}"`));
    await until("the right file is loaded", isDetail(after));
  });

  it("a service that can't be created is back when its file is right again", async () => {
    const file = path.join(folder, "services/users/users.service.ts");
    const source = await readFile(file, "utf8");
    const before = await detail();
    const broken = source.replace('\n    name: "users",', '\n    name: "",');
    expect(broken).not.toBe(source);
    await save(file, broken);
    await until("the service is gone", isDetail(503));
    await save(file, source);
    await until("the service is back", isDetail(before));
  });

  it("the gateway is reloaded after a change of its files, and serves on the same port", async () => {
    const file = path.join(folder, "services/api/auth/token-verifier.ts");
    const source = await readFile(file, "utf8");
    const OURS = "a valid access token is needed";
    expect(source).toContain(OURS);
    for (const text of ["a current access token is needed", OURS]) {
      await save(file, source.replace(OURS, text));
      const refusal = async (): Promise<unknown> => (await new Client(url).get("/me")).body["detail"];
      await until(`${text} is served`, async () => (await refusal().catch(() => undefined)) === text); // it is closed meanwhile
    }
  });

  it("all services survive a typo in a file that several of them share", async () => {
    const file = path.join(folder, "mixins/database.mixin.ts");
    const source = await readFile(file, "utf8");
    const reports = (): string[] => [...output.matchAll(/(\w+) was not reloaded/g)].map(([, name]) => name!);
    const earlier = reports().length;
    await writeFile(file, source.replace("import ", "imp ort "));
    await until("it is reported", () => reports().length >= earlier + 3);
    expect(new Set(reports().slice(earlier))).toEqual(new Set(["users", "products", "orders"]));
    const starts = (): number => output.split(/Service '(?:users|products|orders)' started/).length;
    const startedBefore = starts();
    await writeFile(file, source);
    await until("they are reloaded", () => starts() >= startedBefore + 3);
    await until("the shop is healthy", async () => (await new Client(url).get("/health")).status === 200);
  });

  it("ends with a sentence if its port is taken, before it starts a database", async () => {
    const { USERS_DATABASE_URL: _, ...embedded } = env;
    const second = spawn(process.execPath, ["--import", "tsx", "scripts/dev.ts"], {
      cwd: folder,
      env: { ...embedded, DATA_DIR: `${folder}/data` },
    });
    let said = "";
    for (const stream of [second.stdout, second.stderr]) stream.on("data", (chunk: Buffer) => (said += chunk.toString()));
    await once(second, "exit");
    expect(said).toMatch(/the gateway can't listen on .* \(EADDRINUSE\): set PORT or HOST/);
    expect([second.exitCode, existsSync(path.join(folder, "data"))]).toEqual([1, false]);
  });
});
