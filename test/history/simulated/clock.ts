interface Task {
  at: number;
  /** Of two tasks at the same moment, the one scheduled first runs first. */
  turn: number;
  run: () => void;
}

const isBefore = (a: Task, b: Task): boolean => a.at < b.at || (a.at === b.at && a.turn < b.turn);

/** A virtual clock that jumps from task to task. */
export class VirtualClock {
  /** ms */
  now = 0;
  private turns = 0;
  /** A binary heap: no task is due before its parent. */
  private readonly heap: Task[] = [];

  after(ms: number, run: () => void): void {
    const task = { at: this.now + ms, turn: this.turns++, run };
    const { heap } = this;
    let i = heap.push(task) - 1;
    for (let parent = (i - 1) >> 1; i > 0 && isBefore(task, this.at(parent)); i = parent, parent = (i - 1) >> 1) heap[i] = this.at(parent);
    heap[i] = task;
  }

  /** Runs all tasks, including those that they schedule. */
  run(): void {
    for (let task = this.next(); task !== undefined; task = this.next()) {
      this.now = task.at;
      task.run();
    }
  }

  private at(i: number): Task {
    const task = this.heap[i];
    if (task === undefined) throw new Error(`the heap has no place ${i}`);
    return task;
  }

  private next(): Task | undefined {
    const { heap } = this;
    const first = heap[0];
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return first;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(this.at(child + 1), this.at(child))) child++;
      if (!isBefore(this.at(child), last)) break;
      heap[i] = this.at(child);
      i = child;
    }
    heap[i] = last;
    return first;
  }
}
