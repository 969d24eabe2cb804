import bcrypt from "bcryptjs";
import { check } from "../../../services/users/passwords.worker";

jest.mock("node:os", () => ({ setPriority: () => undefined })); // in a worker it changes only the worker's priority

const PASSWORD = "correct horse";
const HIGHEST = 7;

/** The bcrypt rounds of a check. */
async function roundsOf(hashed: string | undefined, password = PASSWORD): Promise<number> {
  const hash = jest.spyOn(bcrypt, "hash").mockReturnValue(undefined);
  const compare = jest.spyOn(bcrypt, "compare").mockReturnValue(undefined);
  await check({ password, hashed, cost: HIGHEST, next: undefined });
  const costs = [...hash.mock.calls.map(([, cost]) => Number(cost)), ...compare.mock.calls.map(([, of]) => bcrypt.getRounds(of))];
  hash.mockRestore();
  compare.mockRestore();
  return costs.reduce((sum, cost) => sum + 2 ** cost, 0);
}

it.each([4, 5, 6, HIGHEST])("a hash of cost %i takes the work of the highest cost", async (cost) => {
  expect(await roundsOf(bcrypt.hashSync(PASSWORD, cost))).toBe(2 ** HIGHEST);
});

it.each([
  ["an unknown account", undefined],
  ["a text that is no hash", "another"],
])("%s takes the work of the highest cost, and never matches", async (_what, hashed) => {
  expect(await roundsOf(hashed)).toBe(2 ** HIGHEST);
  expect(await check({ password: PASSWORD, hashed, cost: 4, next: undefined })).toMatchObject({ isCorrect: false });
});

it("a correct password matches whatever the cost, and only then is a new hash made", async () => {
  const hashed = bcrypt.hashSync(PASSWORD, 4);
  const next = { password: "battery staple", cost: 5 };
  const right = await check({ password: PASSWORD, hashed, cost: 6, next });
  expect([right.isCorrect, bcrypt.compareSync(next.password, right.hash!), bcrypt.getRounds(right.hash!)]).toEqual([true, true, 5]);
  expect(await check({ password: "wrong", hashed, cost: 6, next })).toEqual({ isCorrect: false, rounds: 64, ms: expect.any(Number) });
});
