import { SESSIONS_PER_CALL } from "../../contracts/users";
import { UnknownSessions } from "../../services/api/unknown-sessions";

/** A users service of the test's own. */
function issuer() {
  const asked: string[][] = [];
  const state = { lost: [] as string[], isAway: false };
  const sessions = new UnknownSessions((some) => {
    asked.push(some);
    return state.isAway ? Promise.reject(new Error("away")) : Promise.resolve(some.filter((one) => state.lost.includes(one)));
  });
  return { asked, state, sessions };
}

beforeEach(() => jest.useFakeTimers({ now: 0 }));
afterEach(() => jest.useRealTimers());
const aSecond = () => jest.advanceTimersByTimeAsync(1_000);

it("users is asked within a second about what was seen, each once, without another request; and not while nothing is seen", async () => {
  const { asked, sessions } = issuer();
  for (const session of ["s", "t", "s"]) expect(sessions.has(session)).toBe(false);
  await aSecond();
  expect(asked).toEqual([["s", "t"]]);
  for (let n = 0; n < 5; n++) await aSecond();
  expect(asked).toHaveLength(1);
});

it("what users does not know is refused from then on, and no longer once it knows it again", async () => {
  const { state, sessions } = issuer();
  state.lost = ["t"];
  const seen = () => ["s", "t"].map((session) => sessions.has(session));
  seen();
  await aSecond();
  expect(seen()).toEqual([false, true]);
  await aSecond();
  expect(seen()).toEqual([false, true]);
  state.lost = [];
  await aSecond();
  expect(seen()).toEqual([false, false]);
});

it("while users is away, sessions count as before, and it is asked about all of them once a second", async () => {
  const { asked, state, sessions } = issuer();
  state.lost = ["s"];
  sessions.has("s");
  await aSecond();
  state.isAway = true;
  expect([sessions.has("s"), sessions.has("t")]).toEqual([true, false]);
  await aSecond();
  await aSecond();
  expect(asked.slice(1)).toEqual([["s", "t"], ["s", "t"]]); // prettier-ignore
  state.isAway = false;
  await aSecond();
  expect([sessions.has("s"), sessions.has("t")]).toEqual([true, false]);
});

it("once it is stopped, nothing more is asked, though users was away", async () => {
  const { asked, state, sessions } = issuer();
  state.isAway = true;
  sessions.has("s");
  jest.advanceTimersByTime(1_000);
  sessions.stop(); // while a question is outstanding
  for (let n = 0; n < 3; n++) await aSecond();
  expect(asked).toEqual([["s"]]);
});

it("more sessions than fit into a question are asked about one question after the other", async () => {
  const { asked, sessions } = issuer();
  for (let n = 0; n <= SESSIONS_PER_CALL; n++) sessions.has(`session ${n}`);
  await aSecond();
  expect(asked.map((some) => some.length)).toEqual([SESSIONS_PER_CALL, 1]);
});
