import type { Client } from "../../mixins/fair-queue";
import { LoopTurns } from "../../services/api/loop-turns";

const from = (address: string): Client => ({ address, user: undefined });
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const spin = (ms: number): void => {
  const since = performance.now();
  while (performance.now() - since < ms);
};

describe("turns of the event loop", () => {
  it("work is done at once where little is begun", () => {
    const turns = new LoopTurns();
    const done: string[] = [];
    turns.run(from("a"), () => done.push("a"));
    turns.run(from("b"), () => done.push("b"));
    expect(done).toEqual(["a", "b"]);
  });

  it("where one client asks for a second of the loop's time, another's work comes in the next turn, and timers run in between", async () => {
    const turns = new LoopTurns();
    const done: string[] = [];
    for (let n = 0; n < 200; n++)
      turns.run(from("a"), () => {
        spin(5);
        done.push("a");
      });
    expect(done.length).toBeLessThan(3);
    turns.run(from("b"), () => done.push("b"));
    const timer = { isHeard: false };
    setTimeout(() => (timer.isHeard = true), 1);
    while (!timer.isHeard || !done.includes("b")) await turn();
    expect(done.indexOf("b")).toBeLessThan(5);
    expect(done.length).toBeLessThan(10);
    while (done.length < 201) await turn();
  });

  it("a turn is spent once its time is used up", async () => {
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

  it("in a turn in which a connection has come little is begun, so that the next one is accepted soon; later as much as ever", async () => {
    const turns = new LoopTurns();
    let done = 0;
    turns.run(from("a"), () => spin(6));
    for (let n = 0; n < 40; n++)
      turns.run(from("a"), () => {
        spin(1);
        done++;
      });
    turns.arrived();
    await turn();
    expect(done).toBe(1);
    await turn();
    expect(done).toBeGreaterThan(2);
    while (done < 40) await turn();
  });

  it("what an address has waiting beyond a quarter of the places is refused, and others find room", async () => {
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
