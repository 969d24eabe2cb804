import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { freePorts } from "../../../testkit/free-ports";
import { connects } from "../../../testkit/postgres";
import { eventually } from "../../../testkit/until";

const PROGRAM = "/usr/sbin/pgbouncer";
/** PgBouncer refuses to run as root. */
const USER = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};

export const isPgBouncerInstalled = (): boolean => existsSync(PROGRAM);

export interface PgBouncer {
  /** The URL of the same database through PgBouncer. */
  through(url: string): string;
  stop(): Promise<void>;
}

/** Starts Debian's PgBouncer in front of a server, on a port of its own. @param settings for its ini file */
export async function startPgBouncer(server: string, settings: Readonly<Record<string, string | number>>): Promise<PgBouncer> {
  const { hostname, port, username, password } = new URL(server);
  const folder = await mkdtemp(path.join(tmpdir(), "shop-test-pgbouncer-"));
  await chmod(folder, 0o755);
  const [own = 0] = await freePorts(1);
  const login = `user=${username}${password === "" ? "" : ` password=${decodeURIComponent(password)}`}`;
  const all = { listen_addr: "127.0.0.1", listen_port: own, unix_socket_dir: "", auth_type: "any", ...settings };
  const ini = path.join(folder, "pgbouncer.ini");
  await writeFile(
    ini,
    [
      "[databases]",
      `* = host=${hostname} port=${port || 5432} ${login}`,
      "[pgbouncer]",
      ...Object.entries(all).map(([k, v]) => `${k} = ${v}`),
      "",
    ].join("\n"),
  );
  const bouncer = spawn(PROGRAM, [ini], { ...USER, cwd: folder, stdio: ["ignore", "ignore", "pipe"] });
  let log = "";
  bouncer.stderr.on("data", (chunk: Buffer) => (log += chunk.toString()));
  const through = (url: string): string => {
    const at = new URL(url);
    at.host = `127.0.0.1:${own}`;
    return at.href;
  };
  const stop = async (): Promise<void> => {
    if (bouncer.exitCode === null && bouncer.signalCode === null) {
      const ended = once(bouncer, "exit");
      bouncer.kill("SIGKILL");
      await ended;
    }
    await rm(folder, { recursive: true });
  };
  try {
    await eventually("PgBouncer accepts connections", () => connects(through(server)));
  } catch (cause) {
    await stop();
    throw new Error(`its output:\n${log}`, { cause });
  }
  return { through, stop };
}
