const SAMPLE = /^([a-zA-Z_:][\w:]*)(\{(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\n"])*",?)*\})? ([+-]?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|Inf)|Nan)$/;

/** Parses Prometheus' text format 0.0.4: samples by name and labels, as written. @throws if a line is invalid */
function parse(page: string): Map<string, number> {
  const samples = new Map<string, number>();
  const types = new Map<string, string>();
  for (const line of page.split("\n")) {
    const [, name, type] = /^# TYPE (\S+) (counter|gauge|histogram)$/.exec(line) ?? [];
    if (name !== undefined && type !== undefined) {
      if (types.has(name)) throw new Error(`duplicate type: ${line}`);
      types.set(name, type);
    }
    if (line === "" || /^# (HELP|TYPE) \S+ \S/.test(line)) continue;
    const [, metric = "", labels = "", value] = SAMPLE.exec(line) ?? [];
    const family = types.has(metric) ? metric : metric.replace(/_(bucket|sum|count)$/, "");
    if (!types.has(family) || samples.has(metric + labels)) throw new Error(`sample without a type, or duplicate: ${line}`);
    samples.set(metric + labels, Number(value));
  }
  return samples;
}

/** @param ops base URL of a node's OPS_PORT */
export async function scrape(ops: string): Promise<Map<string, number>> {
  const response = await fetch(`${ops}/metrics`);
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
  return parse(await response.text());
}
