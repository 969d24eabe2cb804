import type { Client } from "../../../../mixins/fair-queue";
import { LoopTurns } from "../../../../services/api/connections/loop-turns";

const from = (address: string): Client => ({ address, user: undefined });
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Milliseconds. Only work lets it go on, so a busy machine makes no difference. */
let now = 0;
const spin = (ms: number): void => {
  now += ms;
};
beforeEach(() => void jest.spyOn(performance, "now").mockImplementation(() => now));
afterEach(() => jest.restoreAllMocks());

describe("turns of the event loop", () => {
  it("work is done at once while the turn has time left", () => {
    const turns = new LoopTurns();
    const done: string[] = [];
    turns.run(from("a"), () => done.push("a"));
    turns.run(from("b"), () => done.push("b"));
    expect(done).toEqual(["a", "b"]);
  });

  it("if one client queues a second of work, another's work runs in the next turn, and other events are handled in between", async () => {
    const turns = new LoopTurns();
    const done: string[] = [];
    for (let n = 0; n < 200; n++)
      turns.run(from("a"), () => {
        spin(5);
        done.push("a");
      });
    expect(done.length).toBeLessThan(3);
    turns.run(from("b"), () => done.push("b"));
    let turnsTaken = 0;
    for (; done.length < 201; turnsTaken++) await turn();
    expect(done.indexOf("b")).toBeLessThan(5);
    expect(turnsTaken).toBeGreaterThan(190); // one item each
  });

  it("a turn is spent when its time is used up", async () => {
    const turns = new LoopTurns();
    expect(turns.isSpent).toBe(false);
    turns.run(from("a"), () => spin(1));
    expect(turns.isSpent).toBe(false);
    turns.run(from("a"), () => spin(5));
    expect(turns.isSpent).toBe(true);
    turns.run(from("a"), () => undefined);
    await turn();
    await turn();
    await turn();
    expect(turns.isSpent).toBe(false);
  });

  it("in a turn with a new connection little work starts, so that the next connection is accepted soon; afterwards as much as before", async () => {
    const turns = new LoopTurns();
    let done = 0;
    turns.run(from("a"), () => spin(6));
    for (let n = 0; n < 40; n++)
      turns.run(from("a"), () => {
        spin(1);
        done++;
      });
    turns.noteArrival();
    await turn();
    expect(done).toBe(1);
    await turn();
    expect(done).toBeGreaterThan(2);
    while (done < 40) await turn();
  });

  it("an address that holds more than a quarter of the places is refused, and others still get in", async () => {
    const turns = new LoopTurns();
    const refused: string[] = [];
    turns.run(from("a"), () => spin(6));
    for (let n = 0; n < 600; n++)
      try {
        turns.run(from("a"), () => undefined);
      } catch (error) {
        refused.push((error as { type: string }).type);
      }
    expect(refused).toEqual(Array.from({ length: 600 - 512 }, () => "TOO_MANY_REQUESTS"));
    const done: string[] = [];
    turns.run(from("b"), () => done.push("b"));
    while (done.length === 0) await turn();
  });
});
