import { open, stat } from "node:fs/promises";
import type { Client } from "pg";

/** The plan of an executed statement, as logged by auto_explain. */
export interface Plan {
  /** The service whose connection it ran on. */
  readonly service: string;
  readonly sql: string;
  readonly ms: number;
  /** How each table was read, e.g. `products_by_price: 21 rows`. */
  readonly reads: readonly string[];
  /** Rows read from tables, including those that a filter removed. */
  readonly rows: number;
  /** Pages accessed, cached or not. */
  readonly buffers: number;
}

interface Node {
  "Node Type": string;
  "Relation Name"?: string;
  "Index Name"?: string;
  "Actual Rows"?: number;
  "Actual Loops"?: number;
  "Rows Removed by Filter"?: number;
  "Rows Removed by Index Recheck"?: number;
  "Shared Hit Blocks"?: number;
  "Shared Read Blocks"?: number;
  Plans?: Node[];
}

/** Server settings that allow logging plans. They cost nothing until `logPlans` switches it on. */
export const PLAN_SETTINGS = { session_preload_libraries: "auto_explain", log_line_prefix: "%m [%p] %a " } as const;

/** Switches the logging of every statement's plan on or off. */
export async function logPlans(client: Client, on: boolean): Promise<void> {
  for (const [name, value] of Object.entries({
    "auto_explain.log_min_duration": on ? "0" : "-1",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_format": "json",
  })) {
    await client.query(`alter system set ${name} = '${value}'`);
  }
  await client.query("select pg_reload_conf()");
  await new Promise((resolve) => setTimeout(resolve, 200)); // connections reload settings between two statements
}

export const sizeOf = async (logFile: string): Promise<number> => (await stat(logFile)).size;

/** The plans logged after a position in the log. */
export async function plansSince(logFile: string, place: number): Promise<Plan[]> {
  const file = await open(logFile);
  try {
    const { size } = await file.stat();
    const buffer = Buffer.alloc(Math.max(0, size - place));
    await file.read(buffer, 0, buffer.length, place);
    return parse(buffer.toString());
  } finally {
    await file.close();
  }
}

/** A log entry starts with a time; its continuation lines start with a tab. */
function parse(log: string): Plan[] {
  return log.split(/^(?=\d{4}-\d\d-\d\d )/m).flatMap((entry) => {
    const found = /^\S+ \S+ \S+ \[\d+\] (\S*) LOG: +duration: ([\d.]+) ms +plan:\n([^]*)$/.exec(entry);
    if (found === null) return [];
    const [, service = "", ms = "", json = ""] = found;
    let logged: { "Query Text": string; Plan: Node };
    try {
      logged = JSON.parse(json.replace(/^\t/gm, "")) as typeof logged; // the format of auto_explain
    } catch {
      return []; // still being written
    }
    const scans = nodesOf(logged.Plan).filter((node) => isScan(node));
    return {
      service,
      sql: logged["Query Text"].replace(/\s+/g, " ").trim(),
      ms: Number(ms),
      reads: scans.map(describe),
      rows: scans.reduce((sum, node) => sum + rowsOf(node), 0),
      buffers: (logged.Plan["Shared Hit Blocks"] ?? 0) + (logged.Plan["Shared Read Blocks"] ?? 0),
    };
  });
}

const nodesOf = (node: Node): Node[] => [node, ...(node.Plans ?? []).flatMap(nodesOf)];

const isScan = (node: Node): boolean =>
  node["Actual Loops"] !== 0 &&
  (node["Relation Name"] !== undefined || node["Index Name"] !== undefined) &&
  node["Node Type"] !== "ModifyTable";

function rowsOf(node: Node): number {
  if (node["Node Type"] === "Bitmap Index Scan") return 0; // counted at the heap scan that fetches the rows
  const each = (node["Actual Rows"] ?? 0) + (node["Rows Removed by Filter"] ?? 0) + (node["Rows Removed by Index Recheck"] ?? 0);
  return Math.round(each * (node["Actual Loops"] ?? 1));
}

function describe(node: Node): string {
  const type = node["Node Type"];
  const where = node["Index Name"] ?? node["Relation Name"] ?? "";
  if (type === "Bitmap Index Scan") return `bitmap ${where}`;
  return `${type === "Seq Scan" ? "SEQ " : type === "Bitmap Heap Scan" ? "heap " : ""}${where} ${rowsOf(node)}`;
}

/** One line for the plans of a request, without statements that read no table. */
export function summary(plans: readonly Plan[]): string {
  return plans
    .filter((plan) => plan.reads.length > 0)
    .map((plan) => `${plan.reads.join(", ")} (${plan.rows} rows, ${plan.buffers} buffers, ${plan.ms.toFixed(2)} ms)`)
    .join("; ");
}
