import type { ChangedRole, PageEnd } from "../../contracts/users";
import { Revocations } from "../../services/api/revocations";
import { testId } from "../support/ids";

interface Asked {
  since?: string;
  after?: PageEnd;
}

/** A users service of the test's own, on a clock that the test moves. */
function issuer() {
  const asked: Asked[] = [];
  const failures: unknown[] = [];
  const kids: string[][] = [];
  const state = {
    ended: [] as { session: string; until: number }[],
    roles: undefined as ChangedRole[] | undefined,
    next: null as PageEnd | null,
    down: false,
    at: 0,
  };
  const revocations = new Revocations(
    (params) => {
      asked.push(params);
      if (state.down) return Promise.reject(new Error("away"));
      const { ended, next, roles } = state;
      Object.assign(state, { ended: [], next: null, roles: undefined });
      const news = { at: new Date(state.at++ * 1000).toISOString(), next, kids: ["a key"], ended };
      return Promise.resolve(roles === undefined ? news : { ...news, roles }); // a node of an earlier version knows none
    },
    (told) => kids.push([...told]),
    (error) => failures.push(error),
  );
  return { asked, failures, kids, state, revocations };
}

beforeEach(() => jest.useFakeTimers({ now: 0 }));
afterEach(() => jest.useRealTimers());
/** What is already answered is heard. */
const settled = async (): Promise<void> => {
  for (let i = 0; i < 10; i++) await Promise.resolve();
};
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

it("where there is more, it is asked for at once, behind the page before; the next round goes on where this one began", async () => {
  const { asked, state, revocations } = issuer();
  const next = { ended_at: "1970-01-01T00:00:04.000001Z", session: "s" };
  Object.assign(state, { next, at: 5, ended: [{ session: "s", until: 900 }] });
  await revocations.refresh();
  expect(asked).toEqual([{}, { after: next }]);
  expect(revocations.hasEnded("s")).toBe(true);
  later(1_000);
  void revocations.refresh();
  expect(asked[2]).toEqual({ since: "1970-01-01T00:00:05.000Z" });
});

it("while an answer is outstanding, nothing more is asked", async () => {
  let answer: () => void = () => undefined;
  let asked = 0;
  const slow = new Revocations(
    () => {
      asked++;
      return new Promise((resolve) => (answer = () => resolve({ at: "1970-01-01T00:00:00.000Z", next: null, kids: [], ended: [] })));
    },
    () => undefined,
    () => undefined,
  );
  const waits = slow.refresh();
  later(5_000);
  expect(slow.refresh()).toBe(waits);
  expect(asked).toBe(1);
  answer();
  await waits;
  expect(slow.refresh()).toBeInstanceOf(Promise); // what it told is five seconds old
  expect(asked).toBe(2);
});

it("users was away, and a pause later somebody asks: they wait, and see what ended meanwhile", async () => {
  const { state, revocations } = issuer();
  state.down = true;
  await revocations.refresh();
  Object.assign(state, { down: false, ended: [{ session: "s", until: 900 }] });
  later(3_000);
  const waits = revocations.refresh();
  expect(waits).toBeInstanceOf(Promise);
  await waits;
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

it("a role that has changed counts, whatever the token says, until the last token from before has expired", async () => {
  const { state, revocations } = issuer();
  const [id, other] = [testId(7), testId(8)];
  const admin = { id, role: "admin" } as const;
  await revocations.refresh();
  expect(revocations.withRole(admin)).toBe(admin);
  for (const [at, roles, role] of [
    [100, [{ user: id, role: "user", until: 1_000 }], "user"],
    [101, [{ user: other, role: "user", until: 1_001 }], "user"],
    [102, [{ user: id, role: "admin", until: 1_002 }], "admin"],
    [103, [{ user: id, role: "user", until: 1_003 }], "user"],
    [1_003, undefined, "user"],
    [1_100, undefined, "admin"],
  ] as const) {
    Object.assign(state, { at, roles });
    later(2_000);
    await revocations.refresh();
    expect([at, revocations.withRole(admin)]).toEqual([at, { id, role }]);
  }
});

it("a role that the database has fallen back to counts in place of the one that was heard of, and of the token's", async () => {
  const { state, revocations } = issuer();
  const [id, other] = [testId(7), testId(8)];
  Object.assign(state, { at: 100, roles: [{ user: id, role: "admin", until: 1_000 }] });
  await revocations.refresh();
  for (const caller of [
    { id, role: "user" },
    { id: other, role: "admin" },
  ] as const) {
    expect(revocations.withRole(caller).role).toBe("admin");
    revocations.setRole(caller, "user", 1_010);
    expect(revocations.withRole(caller).role).toBe("user");
  }
});

it("users away: the first request waits and goes on, the others do not wait; it is said once; one a second asks again", async () => {
  const { asked, failures, state, revocations } = issuer();
  state.down = true;
  await revocations.refresh();
  expect(revocations.refresh()).toBeUndefined();
  later(1_000);
  expect(revocations.refresh()).toBeUndefined();
  await settled();
  expect([asked.length, failures.length]).toEqual([2, 1]);
  state.down = false;
  later(1_000);
  expect(revocations.refresh()).toBeUndefined();
  expect(asked).toHaveLength(3);
});
