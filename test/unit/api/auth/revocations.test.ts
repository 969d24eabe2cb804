import type { ChangedRole, PageEnd } from "../../../../contracts/users";
import { Revocations } from "../../../../services/api/auth/revocations";
import { testId } from "../../../../testkit/ids";

interface Asked {
  since?: string;
  after?: PageEnd;
}

/** A stub of the users service, on a clock that the test moves. */
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
      if (state.down) return Promise.reject(new Error("unavailable"));
      const { ended, next, roles } = state;
      Object.assign(state, { ended: [], next: null, roles: undefined });
      const news = { at: new Date(state.at++ * 1000).toISOString(), next, kids: ["a key"], ended };
      return Promise.resolve(roles === undefined ? news : { ...news, roles }); // a node of an earlier version doesn't return roles
    },
    (current) => kids.push([...current]),
    (error) => failures.push(error),
  );
  return { asked, failures, kids, state, revocations };
}

beforeEach(() => jest.useFakeTimers({ now: 0 }));
afterEach(() => jest.useRealTimers());
/** Lets responses that have arrived be processed. */
const settled = async (): Promise<void> => {
  for (let i = 0; i < 10; i++) await Promise.resolve();
};
const later = (ms: number) => jest.advanceTimersByTime(ms);

it("the first request waits for the response; requests of the next second make no call; then one makes a call, without waiting", async () => {
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

it("after a pause a request waits, and sees the sessions that have ended meanwhile", async () => {
  const { state, revocations } = issuer();
  await revocations.refresh();
  later(60_000);
  state.ended = [{ session: "s", until: 900 }];
  const waits = revocations.refresh();
  expect(waits).toBeInstanceOf(Promise);
  await waits;
  expect([revocations.hasEnded("s"), revocations.hasEnded("t")]).toEqual([true, false]);
});

it("a further page is requested at once; the next round continues from the time at which this one began", async () => {
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

it("while a call is in flight, no other call is made", async () => {
  let respond: () => void = () => undefined;
  let asked = 0;
  const slow = new Revocations(
    () => {
      asked++;
      return new Promise((resolve) => (respond = () => resolve({ at: "1970-01-01T00:00:00.000Z", next: null, kids: [], ended: [] })));
    },
    () => undefined,
    () => undefined,
  );
  const waits = slow.refresh();
  later(5_000);
  expect(slow.refresh()).toBe(waits);
  expect(asked).toBe(1);
  respond();
  await waits;
  expect(slow.refresh()).toBeInstanceOf(Promise); // its response is five seconds old
  expect(asked).toBe(2);
});

it("after users was unavailable and a pause, a request waits, and sees the sessions that have ended meanwhile", async () => {
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

it("an ended session is kept until its last token has expired, by the clock that wrote the times", async () => {
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

it("a changed role takes precedence over the token's, until the last older token has expired", async () => {
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

it("the role in a restored database takes precedence over the reported one and over the token's", async () => {
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

it("while users is unavailable, only the first request waits, the failure is reported once, and one call per second is made", async () => {
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
