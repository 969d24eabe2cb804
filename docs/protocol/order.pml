/*
 * The protocol by which an order gets its stock, for Spin (https://spinroot.com). README.md says what is checked, and ./check runs it.
 *
 * -D sets the bounds, or leaves one part of the protocol out.
 */
#ifndef NODES
#define NODES 2 /* of each service */
#endif
#ifndef REWINDS
#define REWINDS 1 /* restores of one of the two databases */
#endif

/* Two clients order units of one product. There is enough for one of them, unless both want the same. */
#define ORDERS 2
#define STOCK 2
#ifdef SAME_LINES
#define UNITS(who) 1
#else
#define UNITS(who) ((who) == 0 -> 2 : 1)
#endif

/* The status of an order. */
mtype:Status = { CANCELLED, REJECTED, CONFIRMED, PENDING }
#define NONE 0

/* The state of an outbox row. */
#define SETTLED 0 /* or there is no row: neither is published */
#define DUE 1
#define PARKED 2

/* The state of a reservation. */
mtype:Reservation = { RELEASED, SHORT, RESERVED }
#define UNKNOWN 0

#define NO_LINES ORDERS /* of a tombstone */
#define FITS(a, b) ((a) == NO_LINES || UNITS(a) == UNITS(b))

/* ---- order_db ---- */
typedef Order {
  byte status;
  byte who; /* the client, and so the lines */
  byte created; /* the outbox row of order.created */
  byte cancelled; /* the outbox row of order.cancelled */
  bool isRestored /* from a backup: what happened to it afterwards is lost */
}
Order order[ORDERS];
byte placed; /* the clients who have placed their order: a set */
#ifdef IDS_REPEAT
byte nextId, backupOfNextId;
#endif

/* ---- product_db ---- */
typedef Row {
  byte state;
  byte who /* whose lines it has */
}
Row reservation[ORDERS];
byte left = STOCK;

/* ---- the network: sets of messages, so that each may overtake any other ---- */
#define BIT(n) (1 << (n))
#define CREATED(id, who) ((id) * ORDERS + (who))
#define REPLY(id, state, who) (((id) * 3 + (state) - 1) * (ORDERS + 1) + (who))
int created, cancelled, replies;

/* Any member of a set. */
inline pick(set, n) {
  n = 0;
  do
  :: (set & BIT(n)) != 0 -> break
  :: (set >> (n + 1)) != 0 -> n++
  od
}

/*
 * Crashes, losses and duplicates. By default there may be any number of them, and they need no steps of their own: a message stays in the
 * network once it was sent, so that it may be received again and again, or never. With COUNTED there are as many as -D says.
 */
#ifdef COUNTED
byte losses = LOSSES, duplicates = DUPLICATES;
inline receive(set, n) {
  pick(set, n);
  if
  :: set = set & ~BIT(n)
  :: duplicates > 0 -> duplicates--; printf("a message is duplicated\n")
  fi
}
#define isEmpty (created == 0 && cancelled == 0 && replies == 0)
#else
#define receive(set, n) pick(set, n)
#define isEmpty true /* all that is in flight may be lost now */
#endif

/*
 * What a node holds in memory, between receiving and its commit or between its commit and sending, counts as in flight: it receives or sends
 * at the moment of its commit, and its crash is a loss. With HELD it does hold messages: others go on meanwhile, and a crash forgets them.
 */
#define forget() n = 0; id = 0; who = 0; state = 0
byte busy; /* nodes that hold a message */
#if !defined(HELD)
#define HOLD
#elif defined(COUNTED)
byte crashes = CRASHES;
#define HOLD busy++ }; atomic { busy--; if :: true :: crashes > 0 -> crashes--; printf("a node crashes\n"); forget(); goto idle fi;
#else
#define HOLD busy++ }; atomic { busy--; if :: true :: forget(); goto idle fi;
#endif

/* ---- backups and restores ---- */
byte rewinds = REWINDS;
bool isOrdersBackedUp, isProductsBackedUp, isOrdersRewound, isProductsRewound;
bool isRepaired; /* when nothing was in flight, and no database was restored since */
Order backupOfOrder[ORDERS];
Row backupOfReservation[ORDERS];
byte backupOfLeft;

#define isOpen(id, row) (order[id].created == row || order[id].cancelled == row)
#define isParked(id) isOpen(id, PARKED)
/* What the relay publishes, until a reply settles it. */
#ifdef NO_RELAY
#define isPublished(row) false
#else
#define isPublished(row) (row == DUE)
#endif
#define isAsked(id) (isPublished(order[id].created) || isPublished(order[id].cancelled))
#define isQuiet (!isAsked(0) && !isAsked(1) && isEmpty && busy == 0)
#define isRewound (isOrdersRewound || isProductsRewound)
#define holds(id) (reservation[id].state == RESERVED)
#define heldBy(id) (holds(id) -> UNITS(reservation[id].who) : 0)

/* What is on the shelf and what is held are all there is. */
inline checkLedger() {
  assert(left + heldBy(0) + heldBy(1) == STOCK)
}

/* What products replies about an order, as it is stored. */
#define STORED(id) REPLY(id, reservation[id].state, reservation[id].who)
#ifdef NO_TOMBSTONE
#define OUTCOME(id) (reservation[id].state == UNKNOWN -> REPLY(id, RELEASED, NO_LINES) : STORED(id))
#else
#define OUTCOME(id) STORED(id)
#endif

/* releaseStock() of services/products/reservations.store.ts: one transaction. A cancel that overtakes its create leaves a tombstone. */
inline release(id) {
  if
  :: reservation[id].state == RESERVED ->
     left = left + UNITS(reservation[id].who);
     reservation[id].state = RELEASED;
     printf("products: releases the stock of order %d\n", id)
  :: reservation[id].state == UNKNOWN ->
#ifndef NO_TOMBSTONE
     reservation[id].state = RELEASED;
     reservation[id].who = NO_LINES;
#endif
     printf("products: has nothing to release for order %d\n", id)
  :: else -> printf("products: has rejected or released order %d before\n", id)
  fi;
  checkLedger()
}

/* planOf() of services/orders/repair.ts: what mends a difference, where a person need not decide. */
#define NOTHING 0
#define REPUBLISH_CREATED 1
#define REPUBLISH_CANCELLED 2
#define RELEASE 3
inline planRepair(plan, id, seen) {
  if
  :: order[id].status == NONE && seen == RESERVED -> plan = RELEASE
  :: order[id].status != NONE && !isOpen(id, DUE) && !isOpen(id, PARKED) ->
     if
     :: order[id].status == PENDING && seen != RELEASED -> plan = REPUBLISH_CREATED
     :: order[id].status == CONFIRMED && seen == UNKNOWN -> plan = REPUBLISH_CREATED
     :: order[id].status == CANCELLED && seen == RESERVED -> plan = REPUBLISH_CANCELLED
     :: order[id].status == REJECTED && (seen == UNKNOWN || seen == RESERVED) -> plan = RELEASE
     :: else -> plan = NOTHING
     fi
  :: else -> plan = NOTHING
  fi
}

/* republish() of services/orders/repair.store.ts and the action products.release: a transaction each. */
inline applyRepair(plan, id) {
  if
  :: plan == REPUBLISH_CREATED && (order[id].status == PENDING || order[id].status == CONFIRMED) && order[id].created == SETTLED ->
     order[id].created = DUE;
     printf("repair: republishes order.created of order %d\n", id)
  :: plan == REPUBLISH_CANCELLED && order[id].status == CANCELLED && order[id].cancelled == SETTLED ->
     order[id].cancelled = DUE;
     printf("repair: republishes order.cancelled of order %d\n", id)
  :: plan == RELEASE -> release(id)
  :: else
  fi;
  plan = NOTHING
}

#define copyOrder(to, from, id) \
  to[id].status = from[id].status; \
  to[id].who = from[id].who; \
  to[id].created = from[id].created; \
  to[id].cancelled = from[id].cancelled
#define copyReservation(to, from, id) \
  to[id].state = from[id].state; \
  to[id].who = from[id].who
#define forgetOrder(id) \
  backupOfOrder[id].status = 0; \
  backupOfOrder[id].who = 0; \
  backupOfOrder[id].created = 0; \
  backupOfOrder[id].cancelled = 0
#define forgetReservation(id) \
  backupOfReservation[id].state = 0; \
  backupOfReservation[id].who = 0

inline backUpOrders() {
  isOrdersBackedUp = true;
  copyOrder(backupOfOrder, order, 0);
  copyOrder(backupOfOrder, order, 1);
#ifdef IDS_REPEAT
  backupOfNextId = nextId;
#endif
  printf("order_db is backed up\n")
}

inline backUpProducts() {
  isProductsBackedUp = true;
  copyReservation(backupOfReservation, reservation, 0);
  copyReservation(backupOfReservation, reservation, 1);
  backupOfLeft = left;
  printf("product_db is backed up\n")
}

/* A backup is forgotten once it is restored: restoring it twice is the same as backing up what was restored. */
inline restoreOrders() {
  rewinds--;
  isOrdersBackedUp = false;
  isOrdersRewound = true;
  isRepaired = false;
  copyOrder(order, backupOfOrder, 0);
  copyOrder(order, backupOfOrder, 1);
  forgetOrder(0);
  forgetOrder(1);
  order[0].isRestored = order[0].status != NONE;
  order[1].isRestored = order[1].status != NONE;
#ifdef IDS_REPEAT
  nextId = backupOfNextId;
  backupOfNextId = 0;
#endif
  printf("order_db is restored\n")
}

inline restoreProducts() {
  rewinds--;
  isProductsBackedUp = false;
  isProductsRewound = true;
  isRepaired = false;
  copyReservation(reservation, backupOfReservation, 0);
  copyReservation(reservation, backupOfReservation, 1);
  left = backupOfLeft;
  forgetReservation(0);
  forgetReservation(1);
  backupOfLeft = 0;
  printf("product_db is restored\n")
}

/* ---- what agrees, once nothing is in flight ---- */
inline checkAtRest(id) {
  /* an order that is PENDING has an outbox row that is parked, with a reason: none waits for ever in silence */
  assert(order[id].status != PENDING || isParked(id));
  if
  :: !isProductsRewound && !order[id].isRestored && (order[id].status != NONE || !isOrdersRewound) ->
     /* no restore concerns it */
#if !defined(REFUSALS) && !defined(IDS_REPEAT)
     assert(!isParked(id));
#endif
     assert(isParked(id) || (order[id].status == CONFIRMED) == holds(id));
     assert(isParked(id) || (order[id].status == REJECTED) == (reservation[id].state == SHORT && order[id].status != CANCELLED))
  :: else
  fi;
  /* after the repair stock is held for CONFIRMED orders alone, and for those that an operator was asked about */
  assert(!isRepaired || isParked(id) || !holds(id) || order[id].status == CONFIRMED)
}

/* ---- orders ---- */

/* insertOrders() of services/orders/insert.store.ts: order and outbox row in one statement. */
inline placeOrder(client) {
  atomic {
    (placed & BIT(client)) == 0 ->
    placed = placed | BIT(client);
    who = client;
#ifdef IDS_REPEAT
    id = nextId;
    nextId++;
#else
    id = client; /* UUIDs never repeat, whatever is restored */
#endif
    order[id].status = PENDING;
    order[id].who = who;
    order[id].isRestored = false;
    order[id].cancelled = SETTLED;
#ifndef NO_OUTBOX
    order[id].created = DUE;
#endif
    printf("orders: client %d places order %d, which is PENDING\n", who, id);
    HOLD
    created = created | BIT(CREATED(id, who));
    forget()
  }
}

/* The action orders.cancel: status and outbox row in one transaction. */
inline cancelOrder(which) {
  atomic {
    order[which].status == PENDING || order[which].status == CONFIRMED ->
    order[which].status = CANCELLED;
#ifndef NO_OUTBOX
    order[which].cancelled = DUE;
#endif
    id = which;
    printf("orders: order %d becomes CANCELLED\n", id);
    HOLD
    cancelled = cancelled | BIT(id);
    forget()
  }
}

/* claim() of mixins/outbox.claim.ts in one statement, and publishRows() of mixins/outbox.mixin.ts afterwards. */
inline publish(which) {
  atomic {
    isPublished(order[which].created) && (created & BIT(CREATED(which, order[which].who))) == 0 ->
    id = which;
    who = order[which].who;
    printf("orders: publishes order.created of order %d\n", id);
    HOLD
    created = created | BIT(CREATED(id, who));
    forget()
  }
}
inline publishCancelled(which) {
  atomic {
    isPublished(order[which].cancelled) && (cancelled & BIT(which)) == 0 ->
    id = which;
    printf("orders: publishes order.cancelled of order %d\n", id);
    HOLD
    cancelled = cancelled | BIT(id);
    forget()
  }
}

/* mismatch() of services/orders/order.ts */
#ifdef NO_FIT
#define isOfOtherLines false
#else
#define isOfOtherLines !FITS(who, order[id].who)
#endif
#define isMisfit (isOfOtherLines || (state == RELEASED && order[id].status != CANCELLED) || \
  (state == SHORT && order[id].status == CONFIRMED) || (state == RESERVED && order[id].status == REJECTED))

active [NODES] proctype orders() {
  byte n, id, who, state;
idle:
  do
  :: placeOrder(0)
  :: placeOrder(1)
  :: cancelOrder(0)
  :: cancelOrder(1)
  :: publish(0)
  :: publish(1)
  :: publishCancelled(0)
  :: publishCancelled(1)
  /* stock.settled: settleOrders() of services/orders/transitions.store.ts, one transaction */
  :: atomic {
       replies != 0 ->
       receive(replies, n);
       HOLD
       who = n % (ORDERS + 1);
       state = (n / (ORDERS + 1)) % 3 + 1;
       id = n / (3 * (ORDERS + 1));
       if
       :: order[id].status == NONE -> printf("orders: there is no order %d\n", id)
       :: order[id].status != NONE && isMisfit ->
          order[id].created = (order[id].created == DUE -> PARKED : order[id].created);
          order[id].cancelled = (order[id].cancelled == DUE -> PARKED : order[id].cancelled);
          printf("orders: parks what is due of order %d, since a reply does not fit it\n", id)
       :: order[id].status != NONE && !isMisfit ->
          order[id].created = SETTLED;
          order[id].cancelled = (state == RESERVED -> order[id].cancelled : SETTLED);
          if
          :: order[id].status == PENDING && state == RESERVED ->
             order[id].status = CONFIRMED;
             printf("orders: order %d becomes CONFIRMED\n", id);
             /* by the stock that was reserved for it, and no other's */
             assert(isProductsRewound || reservation[id].who == order[id].who);
             assert(isProductsRewound || order[id].isRestored || holds(id))
          :: order[id].status == PENDING && state == SHORT ->
             order[id].status = REJECTED;
             printf("orders: order %d becomes REJECTED\n", id)
          :: order[id].status != PENDING -> printf("orders: settles the outbox of order %d\n", id)
          fi
       fi;
       forget()
     }
  od
}

/* ---- products ---- */
#if defined(NOT_IDEMPOTENT)
#define isNew(id) (reservation[id].state == UNKNOWN || reservation[id].state == RESERVED)
#elif defined(NO_STORED_REPLY)
#define isNew(id) (reservation[id].state == UNKNOWN || reservation[id].state == SHORT)
#else
#define isNew(id) (reservation[id].state == UNKNOWN)
#endif

active [NODES] proctype products() {
  byte n, id, who, state;
idle:
  do
  /* order.created: reserveStock() of services/products/reservations.store.ts, one transaction; its outcome is the reply to every repetition */
  :: atomic {
       created != 0 ->
       receive(created, n);
       HOLD
       id = n / ORDERS;
       who = n % ORDERS;
       if
       :: isNew(id) && left >= UNITS(who) ->
          left = left - UNITS(who);
          reservation[id].who = who;
          reservation[id].state = RESERVED;
          printf("products: reserves stock for order %d\n", id)
       :: isNew(id) && left < UNITS(who) ->
          reservation[id].who = who;
          reservation[id].state = SHORT;
          printf("products: rejects order %d for lack of stock\n", id)
       :: !isNew(id) -> printf("products: replies about order %d as before\n", id)
       fi;
       checkLedger();
       n = OUTCOME(id);
       HOLD
       replies = replies | BIT(n);
       forget()
     }
  /* order.cancelled */
  :: atomic {
       cancelled != 0 ->
       receive(cancelled, n);
       HOLD
       id = n;
       release(id);
       n = OUTCOME(id);
       HOLD
       replies = replies | BIT(n);
       forget()
     }
  od
}

/* ---- npm run repair, at any time: compareOne() of services/orders/audit.ts reads the reservation, and the order afterwards; then it is repaired ---- */
#if defined(COUNTED) || defined(HELD)
#define MAY_REPAIR isRewound
#else
#define MAY_REPAIR true
#endif
active proctype repair() {
  byte id, seen, plan;
idle:
  do
  :: atomic {
       MAY_REPAIR ->
       if
       :: id = 0
       :: id = 1
       fi;
       seen = reservation[id].state
     };
     atomic {
       planRepair(plan, id, seen);
       seen = 0;
       if
       :: plan == NOTHING -> id = 0; goto idle
       :: plan != NOTHING
       fi
     };
     atomic {
       applyRepair(plan, id);
       id = 0
     }
  od
}

/* ---- what an operator does, and what befalls the system ---- */
active proctype world() {
  byte n, plan;
  do
  :: atomic { isQuiet -> checkAtRest(0); checkAtRest(1) }
  /* nothing is in flight any more, and the repair runs once more */
  :: d_step {
       isQuiet && !isRepaired && isRewound ->
       created = 0;
       cancelled = 0;
       replies = 0;
       isRepaired = true;
       printf("all is quiet, and the repair runs\n");
       planRepair(plan, 0, reservation[0].state);
       applyRepair(plan, 0);
       planRepair(plan, 1, reservation[1].state);
       applyRepair(plan, 1)
     }
  /* replayRow() of services/orders/outbox.store.ts */
  :: d_step { order[0].created == PARKED -> order[0].created = DUE }
  :: d_step { order[1].created == PARKED -> order[1].created = DUE }
  :: d_step { order[0].cancelled == PARKED -> order[0].cancelled = DUE }
  :: d_step { order[1].cancelled == PARKED -> order[1].cancelled = DUE }
#ifdef REFUSALS
  /* refuseOrders() of services/orders/outbox.store.ts: permanent, or the tenth */
  :: d_step { order[0].created == DUE -> order[0].created = PARKED }
  :: d_step { order[1].created == DUE -> order[1].created = PARKED }
  :: d_step { order[0].cancelled == DUE -> order[0].cancelled = PARKED }
  :: d_step { order[1].cancelled == DUE -> order[1].cancelled = PARKED }
#endif
#if REWINDS > 0
  :: d_step { rewinds > isProductsBackedUp -> backUpOrders() }
  :: d_step { rewinds > isOrdersBackedUp -> backUpProducts() }
  :: d_step { isOrdersBackedUp -> restoreOrders() }
  :: d_step { isProductsBackedUp -> restoreProducts() }
#endif
#ifdef COUNTED
  :: atomic { losses > 0 && created != 0 -> losses--; pick(created, n); created = created & ~BIT(n); n = 0; printf("a crash or the network loses order.created\n") }
  :: atomic { losses > 0 && cancelled != 0 -> losses--; pick(cancelled, n); cancelled = cancelled & ~BIT(n); n = 0; printf("a crash or the network loses order.cancelled\n") }
  :: atomic { losses > 0 && replies != 0 -> losses--; pick(replies, n); replies = replies & ~BIT(n); n = 0; printf("a crash or the network loses stock.settled\n") }
#endif
  od
}
