import type { GatewayActivity } from "../../../../contracts/operations";
import { Activity, ratesBetween, type Counted } from "../../../../services/api/operations/activity";

/** What gateways had counted after some milliseconds, by node. */
const counted = (at: number, gateways: Record<string, GatewayActivity>): Counted => ({ at, gateways: new Map(Object.entries(gateways)) });

function gateway(...requests: [status: number, tookMs: number][]): GatewayActivity {
  const activity = new Activity(() => 3);
  for (const [status, tookMs] of requests) activity.note(status, tookMs);
  return activity.read();
}

it("the requests of all gateways between two moments make the rates", () => {
  const [none, before] = [gateway(), gateway([200, 1])];
  const rates = ratesBetween(
    counted(1_000, { a: none, b: before }),
    counted(3_000, { a: gateway([200, 1], [429, 1], [503, 1]), b: gateway([200, 1], [201, 4]) }),
  );
  expect(rates).toMatchObject({ per_second: 2, refused_per_second: 0.5, failed_per_second: 0.5, in_progress: 6 });
});

it("the median and the p99 are rounded up to a bound of their class", () => {
  const requests = Array.from({ length: 100 }, (_, i): [number, number] => [200, i < 98 ? 4 : 400]);
  const { p50_ms, p99_ms } = ratesBetween(counted(0, { a: gateway() }), counted(1_000, { a: gateway(...requests) }));
  expect([p50_ms, p99_ms]).toEqual([5, 500]);
});

it("a duration above all bounds counts as the highest one", () => {
  expect(ratesBetween(counted(0, { a: gateway() }), counted(1_000, { a: gateway([200, 60_000]) })).p99_ms).toBe(5_000);
});

it("without requests there are no durations", () => {
  const same = { a: gateway([200, 1]) };
  expect(ratesBetween(counted(0, same), counted(1_000, same))).toMatchObject({ per_second: 0, p50_ms: null, p99_ms: null });
});

it("a gateway that is new or was restarted does not count until its second reading", () => {
  const rates = ratesBetween(
    counted(0, { a: gateway([200, 1], [200, 1]) }),
    counted(1_000, { a: gateway([200, 1]), b: gateway([200, 1], [200, 1], [200, 1]) }),
  );
  expect(rates.per_second).toBe(0);
});
