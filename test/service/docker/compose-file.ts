import { parse } from "yaml";
import { SERVICES, type ServiceName } from "../../../config";
import { textOf } from "../../../testkit/repository";

export type Env = Readonly<Record<string, string>>;

export interface Service {
  image: string;
  build?: string;
  pull_policy?: string;
  command?: string[];
  container_name?: string;
  environment: Record<string, string | number>;
  ports?: string[];
  volumes?: string[];
  networks?: string[];
  mem_limit?: string;
  pids_limit?: number;
  cpu_shares?: number;
  depends_on?: Record<string, { condition: string }>;
  healthcheck?: { test: string[] };
  restart?: string;
  stop_grace_period?: string;
}

interface File {
  services: Record<string, Service>;
  networks: Record<string, { internal?: boolean } | null>;
}

/** The file as docker compose reads it: with these variables or, if one is unset or empty, the file's default. */
function file(env: Env): File {
  const interpolated = (text: string): string =>
    text.replace(/\$\{(\w+)(:-([^}]*))?\}/g, (_, name: string, hasDefault?: string, fallback = "") => {
      if (hasDefault === undefined) throw new Error(`${name} has no default: the shop would not start without a .env file`);
      return env[name] ? env[name] : String(fallback);
    });
  const reviver = (_: unknown, value: unknown): unknown => (typeof value === "string" ? interpolated(value) : value);
  return parse(textOf("docker-compose.yml"), reviver, { merge: true }) as File;
}

export const compose = (env: Env = {}): File["services"] => file(env).services;
export const networks = (): File["networks"] => file({}).networks;

/** The environment of a service: the image's variables, overridden by compose's. */
export function environmentOf(service: ServiceName, env: Env = {}): Env {
  const ofImage =
    /^ENV (.*)$/m
      .exec(textOf("Dockerfile"))?.[1]
      ?.split(" ")
      .map((pair) => pair.split("=")) ?? [];
  const ofService = Object.entries(compose(env)[service]!.environment).map(([name, value]) => [name, String(value)]);
  return Object.fromEntries([...ofImage, ...ofService]) as Env;
}

/** The command of the image, with the tests' Node.js. */
export function imageCommand(instruction: "CMD" | "HEALTHCHECK"): string[] {
  const form = { CMD: /^CMD (\[.*\])$/m, HEALTHCHECK: /^HEALTHCHECK .*\\\n {2}CMD (\[.*\])$/m }[instruction];
  const [program, ...args] = JSON.parse(form.exec(textOf("Dockerfile"))?.[1] ?? "[]") as string[];
  if (program !== "node") throw new Error(`the image's ${instruction} does not run node`);
  return [process.execPath, ...args];
}

export const nodes = (): [ServiceName, Service][] => SERVICES.map((name) => [name, compose()[name]!]);

export const exampleEnv = (): Env =>
  Object.fromEntries([...textOf(".env.example").matchAll(/^(\w+)=(.*)$/gm)].map(([, name, value]) => [name, value])) as Env;
