import { eventually } from "./until";

interface Report {
  ok: boolean;
  in_flight: number;
  parked: number;
  checks: { name: string; ok: boolean; violations: number; sample: string[] }[];
}

/** Audits the shop over HTTP, after all orders are settled. @returns the violations */
export async function auditShop({ url, adminToken }: { url: string; adminToken: string }): Promise<string[]> {
  let report: Report | undefined;
  const settled = async (): Promise<boolean> => {
    const response = await fetch(`${url}/admin/consistency`, { headers: { Authorization: `Bearer ${adminToken}` } });
    if (!response.ok) throw new Error(`the audit failed with ${response.status}: ${await response.text()}`);
    report = (await response.json()) as Report;
    return report.in_flight === 0;
  };
  const wrong: string[] = [];
  await eventually("all orders are settled", settled, 120_000, 1_000).catch((error: unknown) => wrong.push(String(error)));
  if (report !== undefined && report.parked > 0) wrong.push(`${report.parked} outbox rows are parked`);
  for (const { name, ok, violations, sample } of report?.checks ?? [])
    if (!ok) wrong.push(`${name}: ${violations}, such as ${sample.join("; ")}`);
  return wrong;
}
