import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { chownSync, existsSync, mkdirSync, openSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { QueryResultRow } from "pg";
import { freePorts } from "../../testkit/free-ports";
import { signalTree } from "../../testkit/process-tree";
import { sql } from "../../testkit/sql";
import { postmasterOf } from "../../testkit/system/system";
import { eventually } from "../../testkit/until";
import { debianPrograms } from "./postgres-server";

/** Seconds until a silent leader is replaced: Patroni's minimum. */
export const TTL_S = 20;
const PASSWORD = "a password of the harness";
const PROGRAMS = { patroni: "/usr/bin/patroni", "etcd-server": "/usr/bin/etcd", haproxy: "/usr/sbin/haproxy" };

/** PostgreSQL refuses to run as root. */
const owner = (): { uid: number; gid: number } | undefined =>
  process.getuid?.() === 0
    ? { uid: Number(execFileSync("id", ["-u", "postgres"])), gid: Number(execFileSync("id", ["-g", "postgres"])) }
    : undefined;

interface Member {
  name: string;
  port: number;
  rest: number;
  /** PostgreSQL's data directory */
  data: string;
  patroni: ChildProcess | undefined;
}

/** PostgreSQL as operators run it: two servers with synchronous replication under Patroni, etcd, and HAProxy in front. */
export class PatroniCluster {
  private readonly members: Member[] = [];
  private readonly helpers: ChildProcess[] = [];

  private constructor(
    private readonly folder: string,
    private readonly etcdPort: number,
    private readonly proxyPort: number,
  ) {}

  /** @returns which program is missing here */
  static missing(): string | undefined {
    const missing = Object.entries(PROGRAMS).flatMap(([name, file]) => (existsSync(file) ? [] : name));
    if (debianPrograms() === undefined) missing.push("postgresql");
    return missing.length > 0 ? `Debian's ${missing.join(", ")} are not installed` : undefined;
  }

  static async start(folder: string): Promise<PatroniCluster> {
    const [etcd = 0, peer = 0, proxy = 0, ...ports] = await freePorts(7);
    const cluster = new PatroniCluster(folder, etcd, proxy);
    cluster.makeFolder(folder);
    try {
      cluster.startEtcd(etcd, peer);
      for (const n of [1, 2]) {
        const [port = 0, rest = 0] = ports.splice(0, 2);
        cluster.members.push({ name: `pg${n}`, port, rest, data: path.join(folder, `pg${n}`), patroni: undefined });
      }
      for (const member of cluster.members) cluster.launch(member);
      await cluster.untilHealthy();
      cluster.startProxy();
    } catch (error) {
      cluster.stop();
      throw error;
    }
    return cluster;
  }

  /** A URL in libpq's form that lists every server. */
  urlOfAll(database: string): string {
    return `postgres://postgres:${encodeURIComponent(PASSWORD)}@${this.members.map(({ port }) => `127.0.0.1:${port}`).join(",")}/${database}?target_session_attrs=read-write`;
  }

  /** The URL of HAProxy, which forwards to the primary. */
  urlOfProxy(database: string): string {
    return urlOf(this.proxyPort, database);
  }

  async sql<Row extends QueryResultRow>(database: string, text: string, values?: unknown[]): Promise<Row[]> {
    return sql<Row>(urlOf((await this.leader()).port, database), text, values);
  }

  /** Waits until one server is the primary and the other a synchronous standby. */
  untilHealthy(): Promise<void> {
    return eventually(
      "Patroni has a primary and a synchronous standby",
      async () => {
        const roles = (await this.roles()).map(({ role, state }) => `${role} ${state}`).sort();
        return /^leader running,sync_standby (running|streaming)$/.test(roles.join());
      },
      90_000,
      250,
    );
  }

  /** Sends SIGKILL to the primary's PostgreSQL; Patroni then promotes the standby. */
  async killPrimary(): Promise<void> {
    const leader = await this.leader();
    process.kill(postmasterOf(leader.data), "SIGKILL");
    await this.untilReplaced(leader);
  }

  async switchOver(): Promise<void> {
    const leader = await this.leader();
    const response = await fetch(`http://127.0.0.1:${leader.rest}/switchover`, {
      method: "POST",
      body: JSON.stringify({ leader: leader.name }),
      signal: AbortSignal.timeout(60_000),
    });
    if (!response.ok) throw new Error(`Patroni did not switch over: ${response.status} ${await response.text()}`);
    await this.untilReplaced(leader);
  }

  /** Sends SIGSTOP to all processes of the primary's machine until the other server is the primary. */
  async freezePrimary(): Promise<void> {
    const leader = await this.leader();
    const signal = (name: NodeJS.Signals): void => {
      for (const pid of [leader.patroni?.pid, postmasterOf(leader.data)]) if (pid !== undefined) signalTree(pid, name);
    };
    signal("SIGSTOP");
    try {
      await this.untilReplaced(leader);
    } finally {
      signal("SIGCONT");
    }
  }

  /** Sends SIGKILL to everything, since nothing is kept. */
  stop(): void {
    for (const { patroni } of this.members) patroni?.kill("SIGKILL");
    for (const member of this.members) {
      try {
        signalTree(postmasterOf(member.data), "SIGCONT");
        signalTree(postmasterOf(member.data), "SIGKILL");
      } catch {
        // it isn't running
      }
    }
    for (const other of this.helpers) other.kill("SIGKILL");
  }

  private untilReplaced(leader: Member): Promise<void> {
    return eventually("the other server is the primary", async () => (await this.leader()).name !== leader.name, (TTL_S + 30) * 1_000, 100);
  }

  /** The roles according to the first member that responds. */
  private async roles(): Promise<{ name: string; role: string; state: string }[]> {
    type Status = { members: { name: string; role: string; state: string }[] };
    const ask = async ({ rest }: Member): Promise<Status> =>
      (await (await fetch(`http://127.0.0.1:${rest}/cluster`, { signal: AbortSignal.timeout(2_000) })).json()) as Status;
    return (await Promise.any(this.members.map(ask))).members;
  }

  private async leader(): Promise<Member> {
    const name = (await this.roles()).find(({ role }) => role === "leader")?.name;
    const found = this.members.find((member) => member.name === name);
    if (found === undefined) throw new Error("there is no primary");
    return found;
  }

  private makeFolder(name: string): void {
    mkdirSync(name, { recursive: true, mode: 0o700 });
    const user = owner();
    if (user !== undefined) chownSync(name, user.uid, user.gid);
  }

  private spawn(program: string, args: string[], env: Record<string, string> = {}): ChildProcess {
    const log = openSync(path.join(this.folder, `${path.basename(program)}.log`), "a");
    return spawn(program, args, {
      env: { PATH: process.env["PATH"] ?? "", LANG: "C.UTF-8", HOME: this.folder, ...env },
      cwd: this.folder,
      stdio: ["ignore", log, log],
      detached: true, // Ctrl-C must reach only us; we stop the process ourselves
      ...owner(),
    });
  }

  private startEtcd(port: number, peer: number): void {
    const [client, peers] = [`http://127.0.0.1:${port}`, `http://127.0.0.1:${peer}`];
    const args = ["--data-dir", path.join(this.folder, "etcd"), "--listen-client-urls", client, "--advertise-client-urls", client];
    args.push("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", `default=${peers}`);
    this.helpers.push(this.spawn(PROGRAMS["etcd-server"], args));
  }

  private launch(member: Member): void {
    const file = path.join(this.folder, `${member.name}.yml`);
    writeFileSync(file, JSON.stringify(this.configuration(member)), { mode: 0o644 }); // JSON is YAML
    member.patroni = this.spawn(PROGRAMS.patroni, [file]);
  }

  private configuration({ name, port, rest, data }: Member): object {
    const address = `127.0.0.1:${rest}`;
    const role = (username: string) => ({ username, password: PASSWORD });
    return {
      scope: "shop",
      name,
      restapi: { listen: address, connect_address: address },
      etcd3: { hosts: [`127.0.0.1:${this.etcdPort}`] },
      bootstrap: {
        dcs: {
          ttl: TTL_S,
          loop_wait: 2,
          retry_timeout: 5,
          synchronous_mode: true,
          primary_start_timeout: 0, // fail over at once when the primary's PostgreSQL has died
          postgresql: { use_pg_rewind: true, parameters: { max_connections: 100, wal_log_hints: "on" } },
        },
        initdb: [{ encoding: "UTF8" }, { locale: "C" }, "data-checksums"],
      },
      postgresql: {
        listen: `127.0.0.1:${port}`,
        connect_address: `127.0.0.1:${port}`,
        data_dir: data,
        bin_dir: debianPrograms(),
        pgpass: `${data}.pgpass`,
        authentication: { superuser: role("postgres"), replication: role("replicator"), rewind: role("rewinder") },
        parameters: { unix_socket_directories: this.folder },
        pg_hba: ["host all all 127.0.0.1/32 scram-sha-256", "host replication all 127.0.0.1/32 scram-sha-256", "local all all trust"],
      },
    };
  }

  /** Starts HAProxy, configured as in Patroni's own example. */
  private startProxy(): void {
    const servers = this.members.map(({ name, port, rest }) => `  server ${name} 127.0.0.1:${port} maxconn 100 check port ${rest}`);
    const file = path.join(this.folder, "haproxy.cfg");
    writeFileSync(
      file,
      `global
  maxconn 200
defaults
  mode tcp
  retries 2
  timeout client 30m
  timeout connect 2s
  timeout server 30m
  timeout check 2s
listen primary
  bind 127.0.0.1:${this.proxyPort}
  option httpchk OPTIONS /primary
  http-check expect status 200
  default-server inter 1s fall 2 rise 1 on-marked-down shutdown-sessions
${servers.join("\n")}
`,
    );
    this.helpers.push(this.spawn(PROGRAMS.haproxy, ["-db", "-f", file]));
  }
}

const urlOf = (port: number, database: string): string =>
  `postgres://postgres:${encodeURIComponent(PASSWORD)}@127.0.0.1:${port}/${database}`;
