import { databaseNames } from "../../config";
import type { Readings } from "./attack";
import type { Shop } from "./shop";

export async function takeReadings(shop: Shop): Promise<Readings> {
  const sizes = databaseNames().map(async ([service]) => {
    const [row] = await shop.sql<{ bytes: string }>(service, "select pg_database_size(current_database()) as bytes");
    return Number(row?.bytes ?? 0);
  });
  const pages = shop.ops.map(
    async (url) => (await (await fetch(`${url}/metrics`, { signal: AbortSignal.timeout(5_000) })).text()).split("\n").length,
  );
  const [bytes, lines] = await Promise.all([Promise.all(sizes), Promise.all(pages)]);
  const sum = (numbers: readonly number[]): number => numbers.reduce((total, one) => total + one, 0);
  return { databaseBytes: sum(bytes), metricLines: sum(lines) };
}
