import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { appendFile, chmod, chown, mkdir, open, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { Client } from "pg";
import { findPrograms } from "../scripts/postgres-binaries";
import { freePorts } from "./free-ports";
import { connects } from "./postgres";
import { eventually } from "./until";

const run = promisify(execFile);
/** Files of the running primary, and its WAL, which the standby streams from the primary instead. */
const NOT_COPIED = ["postmaster.pid", "postmaster.opts", "pg_wal", "pg_replslot", "pg_stat_tmp"];

export interface Standby {
  url(database: string): string;
  stop(): Promise<void>;
}

/**
 * Starts a hot standby that streams from an embedded PostgreSQL. It copies the files of the running primary, since the package has no pg_basebackup.
 * @param cluster the data directory of the primary
 * @param primary the URL of any of its databases
 */
export async function startStandby(cluster: string, primary: string, folder: string): Promise<Standby> {
  const { bin, user } = await findPrograms(cluster);
  const data = path.join(folder, "standby");
  const { hostname, port, password } = new URL(primary);
  const client = new Client({ connectionString: primary });
  await client.connect();
  try {
    await client.query("select pg_backup_start('standby', true)");
    await mkdir(data, { recursive: true, mode: 0o700 });
    await run("tar", ["-C", cluster, ...NOT_COPIED.map((name) => `--exclude=./${name}`), "-cf", `${folder}/standby.tar`, "."]).catch(
      (error: unknown) => {
        if (!isOfChangedFiles(error)) throw error;
      },
    );
    await run("tar", ["-C", data, "-xpf", `${folder}/standby.tar`]);
    const { rows } = await client.query<{ labelfile: string; connections: string }>(
      "select labelfile, current_setting('max_connections') as connections from pg_backup_stop(false)",
    );
    const [{ labelfile, connections } = { labelfile: "", connections: "" }] = rows;
    await writeFile(path.join(data, "backup_label"), labelfile);
    await writeFile(path.join(data, "standby.signal"), "");
    await appendFile(
      path.join(data, "postgresql.auto.conf"),
      `primary_conninfo = 'host=${hostname} port=${port} user=postgres password=${decodeURIComponent(password)}'\nmax_connections = ${connections}\n`,
    );
    for (const name of ["pg_wal", "pg_replslot", "pg_stat_tmp"]) await mkdir(path.join(data, name), { mode: 0o700 });
    if (user !== undefined)
      for (const name of [".", "backup_label", "standby.signal", "postgresql.auto.conf", "pg_wal", "pg_replslot", "pg_stat_tmp"])
        await chown(path.join(data, name), user.uid, user.gid);
  } finally {
    await client.end();
  }

  await chmod(folder, 0o755);
  const [own = 0] = await freePorts(1);
  const settings = { port: own, listen_addresses: "127.0.0.1", unix_socket_directories: "" };
  const log = await open(path.join(folder, "standby.log"), "a");
  const args = ["-D", data, ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])];
  const server = spawn(path.join(bin, "postgres"), args, { ...user, cwd: data, stdio: ["ignore", log.fd, log.fd] });
  await log.close();
  const url = (database: string): string => {
    const at = new URL(primary);
    at.port = String(own);
    at.pathname = `/${database}`;
    return at.href;
  };
  const stop = async (): Promise<void> => {
    if (server.exitCode !== null || server.signalCode !== null) return;
    const ended = once(server, "exit");
    server.kill("SIGQUIT");
    await ended;
  };
  try {
    await eventually("the standby accepts connections", () => connects(url("postgres")));
  } catch (error) {
    await stop();
    throw error;
  }
  return { url, stop };
}

/** tar exits with 1 if files change while it reads them. Replaying the WAL repairs such a copy. */
const isOfChangedFiles = (error: unknown): boolean => error instanceof Error && "code" in error && error.code === 1;
