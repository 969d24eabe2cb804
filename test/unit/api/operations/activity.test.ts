import type { GatewayActivity } from "../../../../contracts/operations";
import { Activity, ratesOf, type Counted } from "../../../../services/api/operations/activity";

function counts(...requests: [status: number, tookMs: number][]): GatewayActivity {
  const activity = new Activity(() => 3);
  for (const [status, tookMs] of requests) activity.note(status, tookMs);
  return activity.read();
}

/** What a gateway had counted at some moments, in ms. */
const gateway = (readings: Record<number, GatewayActivity>): Counted[] =>
  Object.entries(readings).map(([at, activity]) => ({ ...activity, at: Number(at) }));

it("the rates of all gateways are added up, each over its own time", () => {
  const rates = ratesOf([
    gateway({ 1000: counts(), 3000: counts([200, 1], [429, 1], [503, 1], [200, 1]) }),
    gateway({ 2500: counts([200, 1]), 3000: counts([200, 1], [201, 4]) }),
  ]);
  expect(rates).toMatchObject({ per_second: 4, refused_per_second: 0.5, failed_per_second: 0.5, in_progress: 6 });
});

it("the median and the p99 are rounded up to a bound of their class", () => {
  const requests = Array.from({ length: 100 }, (_, i): [number, number] => [200, i < 98 ? 4 : 400]);
  const { p50_ms, p99_ms } = ratesOf([gateway({ 0: counts(), 1000: counts(...requests) })])!;
  expect([p50_ms, p99_ms]).toEqual([5, 500]);
});

it("a duration above all bounds counts as the highest one", () => {
  expect(ratesOf([gateway({ 0: counts(), 1000: counts([200, 60_000]) })])!.p99_ms).toBe(5_000);
});

it("without requests there are no durations", () => {
  const same = counts([200, 1]);
  expect(ratesOf([gateway({ 0: same, 1000: same })])).toMatchObject({ per_second: 0, p50_ms: null, p99_ms: null });
});

it("before a second reading there are no rates", () => {
  expect(ratesOf([gateway({ 0: counts([200, 1]) }), []])).toBeNull();
});

it("a gateway that was restarted does not make rates negative, even if it has served more requests than before", () => {
  const restarted = gateway({ 0: counts([429, 1], [429, 1]), 1000: counts([200, 1], [200, 1], [200, 1]) });
  expect(ratesOf([restarted, gateway({ 0: counts(), 1000: counts([200, 1]) })])).toMatchObject({ per_second: 1, refused_per_second: 0 });
});
