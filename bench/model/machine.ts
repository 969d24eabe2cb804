/** A machine of so many cores in virtual time: work waits for a core, and a process with one thread for itself as well. */
export class Machine {
  now = 0;
  private readonly events: { at: number; run: () => void }[] = [];
  private readonly ready: Task[] = [];
  private busy = 0;

  constructor(private readonly cores: number) {}

  /** Runs `done` so many µs later, without using a core: a disk, a network, a thought. */
  after(delay: number, done: () => void): void {
    const event = { at: this.now + delay, run: done };
    // a binary heap by time
    let n = this.events.push(event) - 1;
    for (let parent = (n - 1) >> 1; n > 0 && (this.events[parent]?.at ?? 0) > event.at; n = parent, parent = (n - 1) >> 1)
      this.swap(n, parent);
  }

  /** Uses a core for so many µs. @param process runs one piece of work at a time; undefined for a server of many processes */
  work(process: Process | undefined, cost: number, done: () => void): void {
    const task = { process, cost, done };
    if (process?.busy === true) {
      process.waiting.push(task);
      return;
    }
    if (process) process.busy = true;
    this.ready.push(task);
    this.start();
  }

  run(until: number): void {
    for (;;) {
      const event = this.events[0];
      if (event === undefined || event.at > until) return;
      const last = this.events.pop();
      if (last !== undefined && this.events.length > 0) {
        this.events[0] = last;
        this.sink();
      }
      this.now = event.at;
      event.run();
    }
  }

  private start(): void {
    while (this.busy < this.cores) {
      const task = this.ready.shift();
      if (task === undefined) return;
      this.busy++;
      this.after(task.cost, () => {
        this.busy--;
        this.finish(task);
        this.start();
      });
    }
  }

  private finish({ process, cost, done }: Task): void {
    if (process) {
      process.used += cost;
      const next = process.waiting.shift();
      if (next === undefined) process.busy = false;
      else this.ready.push(next);
    }
    done();
  }

  private swap(a: number, b: number): void {
    const [x, y] = [this.events[a], this.events[b]];
    if (x && y) [this.events[a], this.events[b]] = [y, x];
  }

  private sink(): void {
    for (let n = 0; ;) {
      let least = n;
      for (const child of [2 * n + 1, 2 * n + 2])
        if ((this.events[child]?.at ?? Infinity) < (this.events[least]?.at ?? Infinity)) least = child;
      if (least === n) return;
      this.swap(n, least);
      n = least;
    }
  }
}

interface Task {
  process: Process | undefined;
  cost: number;
  done: () => void;
}

/** A process with one thread, such as a node of the shop. */
export interface Process {
  /** Whether it has work that runs or waits for a core; the rest waits here. */
  busy: boolean;
  waiting: Task[];
  /** µs of CPU so far */
  used: number;
}

export const newProcess = (): Process => ({ busy: false, waiting: [], used: 0 });

/** As mixins/batching.ts: gathers while so many batches are under way. */
export class Batcher {
  private readonly gathered: (() => void)[] = [];
  private underWay = 0;
  batches = 0;
  items = 0;

  constructor(
    private readonly perform: (size: number, done: () => void) => void,
    private readonly most: number,
    private readonly size = 128,
  ) {}

  add(done: () => void): void {
    this.gathered.push(done);
    this.start();
  }

  get meanSize(): number {
    return this.items / Math.max(1, this.batches);
  }

  private start(): void {
    if (this.underWay >= this.most || this.gathered.length === 0) return;
    const items = this.gathered.splice(0, this.size);
    this.underWay++;
    this.batches++;
    this.items += items.length;
    this.perform(items.length, () => {
      this.underWay--;
      for (const done of items) done();
      this.start();
    });
  }
}
