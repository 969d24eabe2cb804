/*
 * The protocol by which an order gets its stock, for Spin (https://spinroot.com). README.md says what is checked, and ./check runs it.
 *
 * Bounds, and what a mutant leaves out, are given by -D.
 */
#ifndef ORDERS
#define ORDERS 2 /* that clients place */
#endif
#ifndef NODES
#define NODES 2 /* of each service */
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef LOSSES
#define LOSSES 1
#endif
#ifndef DUPLICATES
#define DUPLICATES 1
#endif
#ifndef REWINDS
#define REWINDS 1 /* restores of one of the two databases */
#endif

/* One product. The first order wants all of it, so that both can't be had; with SAME_LINES both want the same. */
#define STOCK 2
#ifdef SAME_LINES
#define UNITS(who) 1
#else
#define UNITS(who) ((who) == 0 -> 2 : 1)
#endif

/* The status of an order; of an announcement in the outbox; of a reservation. */
#define NONE 0
#define PENDING 1
#define CONFIRMED 2
#define REJECTED 3
#define CANCELLED 4

#define ABSENT 0
#define DUE 1
#define SETTLED 2
#define PARKED 3

#define UNKNOWN 0
#define RESERVED 1
#define SHORT 2 /* REJECTED, for want of stock */
#define RELEASED 3

#define NO_LINES ORDERS /* of a tombstone */
#define FITS(a, b) ((a) == NO_LINES || UNITS(a) == UNITS(b))

/* ---- order_db, and its backup ---- */
typedef Order {
  byte status;
  byte who; /* whose it is, and so its lines */
  byte created; /* the announcement order.created */
  byte cancelled; /* the announcement order.cancelled */
  bool restored /* from a backup: what became of it later is lost */
}
Order order[ORDERS];
byte nextId; /* UUIDs never repeat, whatever is restored */
Order backupOfOrder[ORDERS];
byte backupOfNextId;

/* ---- product_db, and its backup ---- */
typedef Reservation {
  byte state;
  byte who /* whose lines it has */
}
Reservation reservation[ORDERS];
byte left = STOCK;
Reservation backupOfReservation[ORDERS];
byte backupOfLeft = STOCK;

/* ---- the network: sets of messages, in no order ---- */
#define BIT(n) (1 << (n))
#define CREATED(id, who) ((id) * ORDERS + (who))
#define REPLY(id, state, who) (((id) * 3 + (state) - 1) * (ORDERS + 1) + (who))
#define REPLIES (ORDERS * 3 * (ORDERS + 1))
int created, cancelled, replies;

/* ---- what may still happen ---- */
byte crashes = CRASHES;
byte losses = LOSSES;
byte duplicates = DUPLICATES;
byte rewinds = REWINDS;
bool isBackedUp; /* before, the backup is that of an empty database */
bool isOrdersRewound, isProductsRewound;
byte placed, /* how many clients have placed theirs, or never will */
  mayCancel = (1 << ORDERS) - 1;
byte repair; /* 0: not yet, 1: it has read the reservations, 2: done, 3: done again */
byte seen[ORDERS];

/*
 * A node keeps nothing between two steps but what it is about to send, or has received; both are as good as on their way. So each step is
 * atomic, and a node that crashes loses the message that it would have sent.
 */
inline send(set, n) {
  if
  :: set = set | BIT(n)
  :: crashes > 0 -> crashes--
  fi
}

/* Any of the messages that are there. */
inline receive(set, n) {
  n = 0;
  do
  :: (set & BIT(n)) != 0 -> break
  :: (set >> (n + 1)) != 0 -> n++
  od;
  if
  :: set = set & ~BIT(n)
  :: duplicates > 0 -> duplicates--
  fi
}

#define isParked(id) (order[id].created == PARKED || order[id].cancelled == PARKED)
#define holds(id) (reservation[id].state == RESERVED)
#define heldBy(id) (reservation[id].state == RESERVED -> UNITS(reservation[id].who) : 0)
#if ORDERS == 1
#define HELD heldBy(0)
#else
#define HELD (heldBy(0) + heldBy(1))
#endif

/* What is on the shelf and what is held are all there is. */
inline checkLedger() {
  assert(left + HELD == STOCK)
}

inline reply(id) {
  send(replies, REPLY(id, reservation[id].state, reservation[id].who))
}

inline release(id) {
  if
  :: reservation[id].state == RESERVED ->
     left = left + UNITS(reservation[id].who);
     reservation[id].state = RELEASED
  :: reservation[id].state == UNKNOWN ->
#ifdef NO_TOMBSTONE
     skip
#else
     reservation[id].state = RELEASED;
     reservation[id].who = NO_LINES
#endif
  :: else
  fi
}

/* ---- backups, and the repair ---- */
inline lose(set, n) {
  n = 0;
  do
  :: (set & BIT(n)) != 0 -> break
  :: (set >> (n + 1)) != 0 -> n++
  od;
  set = set & ~BIT(n);
  n = 0
}

#define copyOrder(to, from, id) \
  to[id].status = from[id].status; \
  to[id].who = from[id].who; \
  to[id].created = from[id].created; \
  to[id].cancelled = from[id].cancelled; \
  to[id].restored = from[id].restored

#define copyReservation(to, from, id) \
  to[id].state = from[id].state; \
  to[id].who = from[id].who

inline backUp() {
  copyOrder(backupOfOrder, order, 0);
  copyReservation(backupOfReservation, reservation, 0);
#if ORDERS > 1
  copyOrder(backupOfOrder, order, 1);
  copyReservation(backupOfReservation, reservation, 1);
#endif
  backupOfNextId = nextId;
  backupOfLeft = left
}

inline restoreOrders() {
  isOrdersRewound = true;
  copyOrder(order, backupOfOrder, 0);
  order[0].restored = order[0].status != NONE;
#if ORDERS > 1
  copyOrder(order, backupOfOrder, 1);
  order[1].restored = order[1].status != NONE;
#endif
#ifdef IDS_REPEAT
  nextId = backupOfNextId
#endif
}

inline restoreProducts() {
  isProductsRewound = true;
  copyReservation(reservation, backupOfReservation, 0);
#if ORDERS > 1
  copyReservation(reservation, backupOfReservation, 1);
#endif
  left = backupOfLeft
}

inline readReservations() {
  seen[0] = reservation[0].state;
#if ORDERS > 1
  seen[1] = reservation[1].state
#endif
}

/* As services/orders/repair.ts: announces again, and releases what is held for an order that does not exist. */
inline mend(id) {
  if
  :: order[id].status == CONFIRMED && seen[id] == UNKNOWN -> order[id].created = DUE
  :: order[id].status == CANCELLED && seen[id] == RESERVED && !isParked(id) -> order[id].cancelled = DUE
  :: order[id].status == REJECTED && (seen[id] == UNKNOWN || seen[id] == RESERVED) && !isParked(id) -> release(id)
  :: order[id].status == NONE && seen[id] == RESERVED -> release(id)
  :: else
  fi
}

/* ---- what agrees, once nothing is on its way ---- */
inline checkAtRest(id) {
  /* an order that waits is asked for, or was given up with a reason */
  assert(order[id].status != PENDING || isParked(id));
  if
  :: !isOrdersRewound && !isProductsRewound ->
     assert(!isParked(id));
     assert((order[id].status == CONFIRMED) == holds(id));
     assert((order[id].status == REJECTED) == (reservation[id].state == SHORT && order[id].status != CANCELLED))
  :: isOrdersRewound && !order[id].restored && order[id].status != NONE ->
     /* placed after the restore: as if nothing had happened */
     assert(isParked(id) || (order[id].status == CONFIRMED) == holds(id))
  :: else
  fi;
  /* after the repair nothing is held for nobody; what a person must decide is an order without stock */
  assert(repair < 3 || isParked(id) || !holds(id) || order[id].status == CONFIRMED)
}

/* ---- orders ---- */
active [NODES] proctype orders() {
  byte n, id, who, state;
end:
  do
  /* POST /orders: order and announcement in one statement */
  :: atomic {
       placed < ORDERS ->
       id = nextId;
       order[id].status = PENDING;
       order[id].who = placed;
       order[id].restored = false;
       order[id].cancelled = ABSENT;
       nextId++;
       placed++;
#ifdef NO_OUTBOX
       order[id].created = SETTLED;
#else
       order[id].created = DUE;
#endif
       send(created, CREATED(id, order[id].who));
       id = 0
     }
  /* POST /orders/{id}/cancel */
  :: atomic {
       mayCancel != 0 ->
       id = 0;
       do
       :: (mayCancel & BIT(id)) != 0 -> break
       :: (mayCancel >> (id + 1)) != 0 -> id++
       od;
       if
       :: order[id].status == PENDING || order[id].status == CONFIRMED ->
          mayCancel = mayCancel & ~BIT(id);
          order[id].status = CANCELLED;
#ifdef NO_OUTBOX
          order[id].cancelled = SETTLED;
#else
          order[id].cancelled = DUE;
#endif
          send(cancelled, id)
       :: else
       fi;
       id = 0
     }
  /* the relay */
  :: atomic { order[0].created == DUE && (created & BIT(CREATED(0, order[0].who))) == 0 -> created = created | BIT(CREATED(0, order[0].who)) }
  :: atomic { order[0].cancelled == DUE && (cancelled & BIT(0)) == 0 -> cancelled = cancelled | BIT(0) }
#if ORDERS > 1
  :: atomic { order[1].created == DUE && (created & BIT(CREATED(1, order[1].who))) == 0 -> created = created | BIT(CREATED(1, order[1].who)) }
  :: atomic { order[1].cancelled == DUE && (cancelled & BIT(1)) == 0 -> cancelled = cancelled | BIT(1) }
#endif
  /* stock.settled: misfit() and settle() of services/orders/order.ts */
  :: atomic {
       replies != 0 ->
       receive(replies, n);
       who = n % (ORDERS + 1);
       state = (n / (ORDERS + 1)) % 3 + 1;
       id = n / (3 * (ORDERS + 1));
       if
       :: order[id].status == NONE /* no order of ours */
       :: order[id].status != NONE &&
          (
#ifndef NO_FIT
            !FITS(who, order[id].who) ||
#endif
            (state == RELEASED && order[id].status != CANCELLED) ||
            (state == SHORT && order[id].status == CONFIRMED) ||
            (state == RESERVED && order[id].status == REJECTED)) ->
          if
          :: order[id].created == DUE -> order[id].created = PARKED
          :: else
          fi;
          if
          :: order[id].cancelled == DUE -> order[id].cancelled = PARKED
          :: else
          fi
       :: else ->
          if
          :: order[id].status == PENDING && state == RESERVED ->
             order[id].status = CONFIRMED;
             /* by the stock that was reserved for it, and no other's */
             assert(isProductsRewound || reservation[id].who == order[id].who);
             assert(isProductsRewound || order[id].restored || reservation[id].state == RESERVED)
          :: order[id].status == PENDING && state == SHORT -> order[id].status = REJECTED
          :: else
          fi;
          if
          :: order[id].created != ABSENT -> order[id].created = SETTLED
          :: else
          fi;
          if
          :: state != RESERVED && order[id].cancelled != ABSENT -> order[id].cancelled = SETTLED
          :: else
          fi
       fi;
       n = 0;
       id = 0;
       who = 0;
       state = 0
     }
  od
}

/* ---- products ---- */
active [NODES] proctype products() {
  byte n, id;
end:
  do
  /* order.created: a reservation is inserted once, and is the reply to every repetition */
  :: atomic {
       created != 0 ->
       receive(created, n);
       id = n / ORDERS;
       if
       :: (reservation[id].state == UNKNOWN
#ifdef NOT_IDEMPOTENT
           || reservation[id].state == RESERVED
#endif
#ifdef NO_STORED_REPLY
           || reservation[id].state == SHORT
#endif
          ) ->
          reservation[id].who = n % ORDERS;
          if
          :: left >= UNITS(n % ORDERS) ->
             left = left - UNITS(n % ORDERS);
             reservation[id].state = RESERVED
          :: else -> reservation[id].state = SHORT
          fi
       :: else
       fi;
       checkLedger();
       reply(id);
       n = 0;
       id = 0
     }
  /* order.cancelled: one that overtakes its create leaves a tombstone */
  :: atomic {
       cancelled != 0 ->
       receive(cancelled, id);
       release(id);
       checkLedger();
#ifdef NO_TOMBSTONE
       if
       :: reservation[id].state == UNKNOWN -> send(replies, REPLY(id, RELEASED, NO_LINES))
       :: else -> reply(id)
       fi;
#else
       reply(id);
#endif
       id = 0
     }
  od
}

/* ---- the world: losses, backups and restores, clients who don't come, the repair ---- */
active proctype world() {
  byte n, id;
  do
  :: atomic { losses > 0 && created != 0 -> losses--; lose(created, n) }
  :: atomic { losses > 0 && cancelled != 0 -> losses--; lose(cancelled, n) }
  :: atomic { losses > 0 && replies != 0 -> losses--; lose(replies, n) }
#if REWINDS > 0
  :: atomic { rewinds > 0 && !isBackedUp -> isBackedUp = true; backUp() }
  :: atomic {
       rewinds > 0 ->
       rewinds--;
       if
       :: restoreOrders()
       :: restoreProducts()
       fi
     }
  :: atomic { rewinds > 0 -> rewinds = 0 }
#endif
  :: atomic { placed < ORDERS -> placed = ORDERS }
  :: atomic { mayCancel != 0 -> mayCancel = 0 }
  /* npm run repair: it reads reservations first, and orders afterwards */
  :: atomic {
       repair == 0 && (isOrdersRewound || isProductsRewound) ->
       readReservations();
       repair = 1
     }
  :: atomic {
       repair == 1 ->
       mend(0);
#if ORDERS > 1
       mend(1);
#endif
       repair = 2
     }
  /* and once more when all is quiet: what was on its way meanwhile it could not see */
  :: atomic {
       timeout && (isOrdersRewound || isProductsRewound) && repair != 3 ->
       checkAtRest(0);
#if ORDERS > 1
       checkAtRest(1);
#endif
       readReservations();
       mend(0);
#if ORDERS > 1
       mend(1);
#endif
       repair = 3
     }
  :: atomic {
       timeout && (repair == 3 || (!isOrdersRewound && !isProductsRewound)) ->
       checkAtRest(0);
#if ORDERS > 1
       checkAtRest(1);
#endif
       break
     }
  od
}

