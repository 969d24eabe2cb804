import { problem, tooLate } from "../broker/errors";

/** The client for whom work is done. */
export interface Client {
  /** As the gateway names it: an IPv4 address, or the /64 network of an IPv6 address. */
  readonly address: string;
  /** Undefined if the client is not authenticated, or not yet. */
  readonly user: string | undefined;
}

/** No address holds more than a quarter of the places, so three others always find free ones. */
const SHARE = 4;

/** How many of `places` one address may hold. */
export const shareOf = (places: number): number => Math.max(1, Math.floor(places / SHARE));

/** Seconds after which a client that holds its share may retry. */
const RETRY_AFTER_SECONDS = 1;

export const overShare = () =>
  problem("TOO_MANY_REQUESTS", "too many of your requests are queued; try again later", { retryAfter: RETRY_AFTER_SECONDS });

export const full = () => problem("SERVICE_UNAVAILABLE", "too many requests are queued");

/** A queue per member of a group; the members take turns in rotation. */
class Rotation<Member, Item, Queue extends { readonly size: number; take(fits?: (item: Item) => boolean): Item | undefined }> {
  /** In the order of their turns: a member moves to the end after its turn. */
  private readonly queues = new Map<Member, Queue>();

  constructor(private readonly newQueue: () => Queue) {}

  queueOf(member: Member): Queue {
    let queue = this.queues.get(member);
    if (queue === undefined) this.queues.set(member, (queue = this.newQueue()));
    return queue;
  }

  sizeOf(member: Member): number {
    return this.queues.get(member)?.size ?? 0;
  }

  /** The total number of items, counting at most so many per member, and only these members. */
  countUpTo(maxPerMember: number, counts: (member: Member) => boolean): number {
    let count = 0;
    for (const [member, queue] of this.queues) if (counts(member)) count += Math.min(queue.size, maxPerMember);
    return count;
  }

  /** Takes the first item that fits; a member without one keeps its turn. */
  take(fits?: (item: Item) => boolean): Item | undefined {
    for (const [member, queue] of this.queues) {
      const item = queue.take(fits);
      if (item === undefined) continue;
      const isAlone = this.queues.size === 1; // the usual case: it is first and last already
      if (queue.size > 0 && isAlone) return item;
      this.queues.delete(member);
      if (queue.size > 0) this.queues.set(member, queue);
      return item;
    }
    return undefined;
  }
}

/** First in, first out. */
class Fifo<Item> {
  private items: Item[] = [];
  private next = 0;

  get size(): number {
    return this.items.length - this.next;
  }

  add(item: Item): void {
    this.items.push(item);
  }

  take(fits?: (item: Item) => boolean): Item | undefined {
    const item = this.items[this.next];
    if (item === undefined || fits?.(item) === false) return undefined;
    this.next++;
    // Not one at a time, which would move all the other items each time.
    if (this.next > 32 && this.next * 2 > this.items.length) {
      this.items = this.items.slice(this.next);
      this.next = 0;
    }
    return item;
  }
}

/** The users of one address. */
class Users<Item> {
  size = 0;
  private readonly rotation = new Rotation<string | undefined, Item, Fifo<Item>>(() => new Fifo());

  add(user: string | undefined, item: Item): void {
    this.rotation.queueOf(user).add(item);
    this.size++;
  }

  take(fits?: (item: Item) => boolean): Item | undefined {
    const item = this.rotation.take(fits);
    if (item !== undefined) this.size--;
    return item;
  }
}

interface Held<Item> {
  readonly item: Item;
  readonly user: string | undefined;
}

/**
 * Pending items in a fair order: turns rotate among addresses, then among the users of an address. However many items one client has,
 * another client's first item is taken after at most one item of each other address. No address holds more than a quarter of the places,
 * nor does any user, from however many addresses.
 */
export class FairQueue<Item> {
  size = 0;
  private readonly share: number;
  private readonly addresses = new Rotation<string, Held<Item>, Users<Held<Item>>>(() => new Users());
  /** Places that each user holds. */
  private readonly held = new Map<string, number>();

  /** @param places maximum number of pending items */
  constructor(private readonly places: number) {
    this.share = shareOf(places);
  }

  /** @throws TOO_MANY_REQUESTS if this address or user holds its share, SERVICE_UNAVAILABLE if every place is taken */
  check({ address, user }: Client): void {
    if (this.addresses.sizeOf(address) >= this.share || (user !== undefined && (this.held.get(user) ?? 0) >= this.share)) throw overShare();
    if (this.size >= this.places) throw full();
  }

  /** @throws as `check` */
  add(client: Client, item: Item): void {
    this.check(client);
    this.force(client, item);
  }

  /**
   * Like `add`, but without the check of shares: for the shop's own work, and for callers that have checked already.
   * @throws SERVICE_UNAVAILABLE
   */
  force({ address, user }: Client, item: Item): void {
    if (this.size >= this.places) throw full();
    this.addresses.queueOf(address).add(user, { item, user });
    this.size++;
    if (user !== undefined) this.held.set(user, (this.held.get(user) ?? 0) + 1);
  }

  /** The number of pending items of an address. */
  sizeOf(address: string): number {
    return this.addresses.sizeOf(address);
  }

  /**
   * How many items are taken, at most, before an address has had its nth turn, if none are added.
   * @param counts whether items of an address come before it at all
   */
  turnsBefore(nth: number, counts: (address: string) => boolean): number {
    return this.addresses.countUpTo(nth, counts);
  }

  /** Takes the item whose turn it is. One that does not fit keeps its turn, and the next user's item may be taken instead. */
  take(fits?: (item: Item) => boolean): Item | undefined {
    const taken = this.size === 0 ? undefined : this.addresses.take(fits && (({ item }) => fits(item)));
    if (taken === undefined) return undefined;
    this.size--;
    if (taken.user !== undefined) this.release(taken.user);
    return taken.item;
  }

  private release(user: string): void {
    const left = (this.held.get(user) ?? 1) - 1;
    if (left > 0) this.held.set(user, left);
    else this.held.delete(user);
  }
}

/** Work that takes longer is slow: many times what a list takes, and less than a client would notice if it waits for one. */
const SLOW_MS = 150;
/** How long an address is treated as slow after its last slow piece of work. */
const SLOW_FOR_MS = 30_000;

/**
 * The addresses whose work was slow recently. Of each kind of work they run one piece at a time, all of them together, so that the other
 * slots stay free for clients whose work is fast: otherwise each of these would have to wait until something slow ends.
 */
export class SlowAddresses {
  /** In the order of their ends. */
  private readonly ends = new Map<string, { readonly at: number; readonly isKnown: boolean }>();

  /**
   * @param addresses for which work was done
   * @param isOneItem whether all of them asked for the same; otherwise any of several may be the slow one
   */
  note(addresses: ReadonlySet<string>, tookMs: number, now: number, isOneItem: boolean): void {
    if (tookMs <= SLOW_MS) return;
    for (const [address, { at }] of this.ends) {
      if (at > now) break;
      this.ends.delete(address);
    }
    for (const address of addresses) {
      const isKnown = isOneItem || addresses.size === 1 || this.isSlow(address, now);
      this.ends.delete(address);
      this.ends.set(address, { at: now + SLOW_FOR_MS, isKnown });
    }
  }

  isSlow(address: string, now: number): boolean {
    const end = this.ends.get(address);
    return end !== undefined && end.isKnown && end.at > now;
  }

  /** Whether it is slow, or shared slow work with others: its next work is done apart from theirs, which shows. */
  mayBeSlow(address: string, now: number): boolean {
    const end = this.ends.get(address);
    return end !== undefined && end.at > now;
  }
}

/** The work of one kind that is in progress, of which slow addresses have one piece at a time. */
export class InProgress {
  private readonly counts = new Map<string, number>();

  constructor(private readonly slow: SlowAddresses) {}

  begin(addresses: Iterable<string>): void {
    for (const address of addresses) this.counts.set(address, (this.counts.get(address) ?? 0) + 1);
  }

  /** Learns from how long it took whose work was slow. */
  end(addresses: ReadonlySet<string>, tookMs: number, now: number, isOneItem: boolean): void {
    this.slow.note(addresses, tookMs, now, isOneItem);
    for (const address of addresses) {
      const left = (this.counts.get(address) ?? 1) - 1;
      if (left > 0) this.counts.set(address, left);
      else this.counts.delete(address);
    }
  }

  /** Whether an address is slow while work of a slow one is in progress, also if that has shown only since it began. */
  mustWait(address: string, now: number): boolean {
    return this.slow.isSlow(address, now) && [...this.counts.keys()].some((other) => this.slow.isSlow(other, now));
  }

  /** Whether the work of an address must not be done together with that of others. */
  isApart(address: string, now: number): boolean {
    return this.slow.mayBeSlow(address, now);
  }
}

interface Waiting {
  readonly address: string;
  start: () => void;
  isWanted: () => boolean;
  drop: () => void;
}

const always = (): boolean => true;

/**
 * A limited number of slots, and a fair queue for work that finds none free. Slots are work-conserving: one client may use all of them
 * while no other is waiting, except that slow addresses share one slot.
 */
export class FairSlots {
  private running = 0;
  private readonly queue: FairQueue<Waiting>;
  private readonly inProgress: InProgress | undefined;

  /**
   * @param slots maximum number of pieces of work that run at one time
   * @param places maximum number of pieces of work in the queue
   * @param slow if given, the addresses to which the exception applies; learns from this work
   */
  constructor(private readonly options: { readonly slots: number; readonly places: number; readonly slow?: SlowAddresses }) {
    this.queue = new FairQueue(options.places);
    this.inProgress = options.slow && new InProgress(options.slow);
  }

  get inFlight(): number {
    return this.running;
  }

  get waiting(): number {
    return this.queue.size;
  }

  /** Refuses a client whose work `run` would refuse now, before any effort is spent on its request. @throws as `run` */
  check(client: Client): void {
    if (this.running >= this.options.slots) this.queue.check(client);
  }

  /**
   * Runs `work` when its turn comes.
   * @param isWanted called at that moment: work whose client has disconnected, or whose deadline has passed, is not started
   * @throws TOO_MANY_REQUESTS, SERVICE_UNAVAILABLE
   */
  async run<T>(client: Client, work: () => Promise<T>, isWanted: () => boolean = always): Promise<T> {
    const { address } = client;
    if (this.running >= this.options.slots || this.queue.size > 0 || this.mustWait(address, performance.now()))
      await this.turn(client, isWanted);
    else if (isWanted()) this.begin(address);
    else throw tooLate();
    const startedAt = performance.now();
    try {
      return await work();
    } finally {
      const now = performance.now();
      this.inProgress?.end(new Set([address]), now - startedAt, now, true);
      this.running--;
      this.startNext();
    }
  }

  private mustWait(address: string, now: number): boolean {
    return this.inProgress?.mustWait(address, now) === true;
  }

  private begin(address: string): void {
    this.running++;
    this.inProgress?.begin([address]);
  }

  private turn(client: Client, isWanted: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const drop = (): void => {
        reject(tooLate());
      };
      this.queue.add(client, { address: client.address, start: resolve, isWanted, drop });
      this.startNext(); // it may be free to start where those before it are not
    });
  }

  private startNext(): void {
    const now = performance.now();
    while (this.running < this.options.slots) {
      const next = this.queue.take(({ address }) => !this.mustWait(address, now));
      if (next === undefined) return;
      if (next.isWanted()) {
        this.begin(next.address);
        next.start();
      } else next.drop();
    }
  }
}
