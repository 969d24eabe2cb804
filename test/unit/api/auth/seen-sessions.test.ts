import { SESSIONS_PER_CALL, type Role } from "../../../../contracts/users";
import { SeenSessions } from "../../../../services/api/auth/seen-sessions";

/** A stub of the users service. */
function issuer() {
  const checkedSessions: string[][] = [];
  const state = { lost: [] as string[], admins: [] as string[], isAway: false };
  const roles: [session: string, bears: Role, has: Role, until: number][] = [];
  const sessions = new SeenSessions(
    (some) => {
      checkedSessions.push(some);
      if (state.isAway) return Promise.reject(new Error("unavailable"));
      const among = (all: string[]) => some.filter((one) => all.includes(one));
      return Promise.resolve({ unknown: among(state.lost), admins: among(state.admins), until: 900 });
    },
    (caller, role, until) => roles.push([caller.session, caller.role, role, until]),
  );
  const isUnknown = (session: string, role: Role = "user") => sessions.isUnknown({ id: `who has ${session}`, role, session });
  return { checkedSessions, roles, state, sessions, isUnknown };
}

beforeEach(() => jest.useFakeTimers({ now: 0 }));
afterEach(() => jest.useRealTimers());
const aSecond = () => jest.advanceTimersByTimeAsync(1_000);

it("each seen session is checked with users once, within a second and without another request; nothing is checked if none was seen", async () => {
  const { checkedSessions, isUnknown } = issuer();
  for (const session of ["s", "t", "s"]) expect(isUnknown(session)).toBe(false);
  await aSecond();
  expect(checkedSessions).toEqual([["s", "t"]]);
  for (let n = 0; n < 5; n++) await aSecond();
  expect(checkedSessions).toHaveLength(1);
});

it("a session that is unknown to users is refused from then on, until users knows it again", async () => {
  const { state, isUnknown } = issuer();
  state.lost = ["t"];
  const seen = () => ["s", "t"].map((session) => isUnknown(session));
  seen();
  await aSecond();
  expect(seen()).toEqual([false, true]);
  await aSecond();
  expect(seen()).toEqual([false, true]);
  state.lost = [];
  await aSecond();
  expect(seen()).toEqual([false, false]);
});

it("while users is unavailable, sessions keep their state, and all of them are checked once a second", async () => {
  const { checkedSessions, state, isUnknown } = issuer();
  state.lost = ["s"];
  isUnknown("s");
  await aSecond();
  state.isAway = true;
  expect([isUnknown("s"), isUnknown("t")]).toEqual([true, false]);
  await aSecond();
  await aSecond();
  expect(checkedSessions.slice(1)).toEqual([["s", "t"], ["s", "t"]]); // prettier-ignore
  state.isAway = false;
  await aSecond();
  expect([isUnknown("s"), isUnknown("t")]).toEqual([true, false]);
});

it("after a stop, nothing more is requested, even though users was unavailable", async () => {
  const { checkedSessions, state, sessions, isUnknown } = issuer();
  state.isAway = true;
  isUnknown("s");
  jest.advanceTimersByTime(1_000);
  sessions.stop(); // while a call is in flight
  for (let n = 0; n < 3; n++) await aSecond();
  expect(checkedSessions).toEqual([["s"]]);
});

it("the current role of each known user is reported, whatever their token contains", async () => {
  const { roles, state, isUnknown } = issuer();
  Object.assign(state, { lost: ["lost"], admins: ["a"] });
  for (const [session, role] of [["a", "user"], ["b", "admin"], ["lost", "admin"]] as const) isUnknown(session, role); // prettier-ignore
  await aSecond();
  expect(roles).toEqual([["a", "user", "admin", 900], ["b", "admin", "user", 900]]); // prettier-ignore
});

it("of a session's tokens, the one with the admin role is checked, in whatever order they arrive", async () => {
  const { roles, isUnknown } = issuer();
  for (const role of ["user", "admin", "user"] as const) isUnknown("s", role);
  await aSecond();
  expect(roles).toEqual([["s", "admin", "user", 900]]);
});

it("more sessions than fit into a call are checked by several calls in turn", async () => {
  const { checkedSessions, isUnknown } = issuer();
  for (let n = 0; n <= SESSIONS_PER_CALL; n++) isUnknown(`session ${n}`);
  await aSecond();
  expect(checkedSessions.map((some) => some.length)).toEqual([SESSIONS_PER_CALL, 1]);
});
