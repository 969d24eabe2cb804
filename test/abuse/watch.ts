import { closeSync, openSync, readSync, statSync } from "node:fs";
import { rssOf } from "../../testkit/process-stats";
import { isAlive } from "../../testkit/process-tree";
import type { RunningProgram } from "../../testkit/program";

const SAMPLE_MS = 200;
/** Far beyond the limit: stop the attack before it uses up the machine's memory. */
const HOPELESS_MB = 1_536;

/** Watches processes during an attack: their memory, whether they are running, and their logs. */
export class Watch {
  private readonly peaks = new Map<string, number>();
  private readonly gone = new Set<string>();
  private readonly offsets: Map<string, number>;
  private readonly timer: NodeJS.Timeout;
  /** Whether a process exited or grew beyond HOPELESS_MB, so that the attack must be stopped. */
  isHopeless = false;

  /** @param onHopeless called once, when `isHopeless` becomes true */
  constructor(
    private readonly processes: readonly RunningProgram[],
    onHopeless: () => void,
  ) {
    this.offsets = new Map(processes.map(({ logFile }) => [logFile, statSync(logFile).size]));
    this.timer = setInterval(() => {
      this.sample();
      if (this.isHopeless || (this.gone.size === 0 && [...this.peaks.values()].every((mb) => mb < HOPELESS_MB))) return;
      this.isHopeless = true;
      onHopeless();
    }, SAMPLE_MS);
  }

  private sample(): void {
    for (const { name, pid } of this.processes) {
      if (!isAlive(pid)) this.gone.add(name);
      this.peaks.set(name, Math.max(this.peaks.get(name) ?? 0, rssOf(pid)));
    }
  }

  stop(): void {
    clearInterval(this.timer);
    this.sample();
  }

  get memoryMb(): Record<string, number> {
    return Object.fromEntries(this.peaks);
  }

  get ended(): string[] {
    return [...this.gone];
  }

  /** All lines logged since the start. A line that isn't JSON has the level "fatal", since a crash writes such lines. */
  lines(): { level: string; text: string }[] {
    return [...this.offsets].flatMap(([file, offset]) =>
      readFrom(file, offset)
        .split("\n")
        .filter((text) => text !== "")
        .map((text) => ({ level: levelOf(text), text })),
    );
  }

  errors(): string[] {
    return this.lines().flatMap(({ level, text }) => (level === "error" || level === "fatal" ? text : []));
  }
}

function levelOf(text: string): string {
  try {
    const line: unknown = JSON.parse(text);
    return typeof line === "object" && line !== null && "level" in line ? String(line.level) : "fatal";
  } catch {
    return "fatal";
  }
}

function readFrom(file: string, offset: number): string {
  const length = statSync(file).size - offset;
  const buffer = Buffer.alloc(Math.max(0, length));
  const fd = openSync(file, "r");
  try {
    return buffer.toString("utf8", 0, readSync(fd, buffer, 0, buffer.length, offset));
  } finally {
    closeSync(fd);
  }
}
