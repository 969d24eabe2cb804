import { Revocations } from "../../services/api/revocations";

interface Asked {
  since?: string;
}

/** A users service of the test's own, on a clock that the test moves. */
function issuer() {
  const asked: Asked[] = [];
  const failures: unknown[] = [];
  const kids: string[][] = [];
  const state = { ended: [] as { session: string; until: number }[], more: false, down: false, at: 0 };
  const revocations = new Revocations(
    (params) => {
      asked.push(params);
      if (state.down) return Promise.reject(new Error("away"));
      const { ended, more } = state;
      Object.assign(state, { ended: [], more: false });
      return Promise.resolve({ at: new Date(state.at * 1000).toISOString(), more, kids: ["a key"], ended });
    },
    (told) => kids.push([...told]),
    (error) => failures.push(error),
  );
  return { asked, failures, kids, state, revocations };
}

beforeEach(() => jest.useFakeTimers({ now: 0 }));
afterEach(() => jest.useRealTimers());
const later = (ms: number) => jest.advanceTimersByTime(ms);

it("the first request waits for the answer; those of the next second ask nothing; then one asks, and nobody waits", async () => {
  const { asked, kids, revocations } = issuer();
  await revocations.refresh();
  expect([asked, kids]).toEqual([[{}], [["a key"]]]);
  later(900);
  expect(revocations.refresh()).toBeUndefined();
  expect(asked).toHaveLength(1);
  later(200);
  expect(revocations.refresh()).toBeUndefined();
  expect(asked).toEqual([{}, { since: "1970-01-01T00:00:00.000Z" }]);
});

it("after a pause a request waits, and sees what ended meanwhile", async () => {
  const { state, revocations } = issuer();
  await revocations.refresh();
  later(60_000);
  state.ended = [{ session: "s", until: 900 }];
  const waits = revocations.refresh();
  expect(waits).toBeInstanceOf(Promise);
  await waits;
  expect([revocations.hasEnded("s"), revocations.hasEnded("t")]).toEqual([true, false]);
});

it("where there is more, it is asked for at once", async () => {
  const { asked, state, revocations } = issuer();
  Object.assign(state, { more: true, at: 5, ended: [{ session: "s", until: 900 }] });
  await revocations.refresh();
  expect(asked).toEqual([{}, { since: "1970-01-01T00:00:05.000Z" }]);
  expect(revocations.hasEnded("s")).toBe(true);
});

it("a session is remembered until its last token has expired, by the clock that wrote the times", async () => {
  const { state, revocations } = issuer();
  Object.assign(state, { at: 100, ended: [{ session: "s", until: 1_000 }] });
  for (const [at, remembered] of [
    [100, true],
    [1_000, true],
    [1_100, false],
  ] as const) {
    state.at = at;
    later(2_000);
    await revocations.refresh();
    expect(revocations.hasEnded("s")).toBe(remembered);
  }
});

it("users away: the first request waits and goes on, the others do not wait; it is said once; one a second asks again", async () => {
  const { asked, failures, state, revocations } = issuer();
  state.down = true;
  await revocations.refresh();
  expect(revocations.refresh()).toBeUndefined();
  later(1_000);
  expect(revocations.refresh()).toBeUndefined();
  await Promise.resolve();
  expect([asked.length, failures.length]).toEqual([2, 1]);
  state.down = false;
  later(1_000);
  expect(revocations.refresh()).toBeUndefined();
  expect(asked).toHaveLength(3);
});
