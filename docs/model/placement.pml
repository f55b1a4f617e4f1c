/* How QuikTrade places one order, and everything that can go wrong on the way.
 *
 * How to read it: a `proctype` is a process, and processes take turns in every possible order. `a -> b` waits until
 * a is true. `if :: x :: y fi` takes one of the branches that can go on, and Spin tries each. `atomic { }` is
 * one step that nothing can come between: a database transaction, or a message arriving. An `assert` that
 * fails in any of the possible histories is a violation. `printf` tells the history of one that was found.
 *
 * Names are the code's; README.md lists them. What -D switches on is explained where it acts: a `VENUE`, an
 * assumption about the world (PUNCTUAL, DUPLICATES, FORGETS_REJECTIONS), or a safeguard that is taken away.
 * check.py knows which belong together.
 */

/* ---- the venue's class: exchanges.venue.ResendSafety ---- */
#define REFUSES_DUPLICATES        1     /* A: refuses a client_order_id it knows, for ever */
#define REFUSES_RECENT_DUPLICATES 2     /* B: likewise, but forgets when its window is over */
#define REFUSES_STALE_REQUESTS    3     /* C: a request is void after its valid_until, the end of its lease */
#define NOTHING                   4     /* D: takes whatever arrives */
#ifndef VENUE
#define VENUE REFUSES_DUPLICATES
#endif

#ifndef FAULTS
#define FAULTS 3                        /* how many things may go wrong, of any kinds, at any moments */
#endif
#define fault    atomic { faults < FAULTS -> faults++ }     /* only as the first thing in a step */
#define LIMIT    (FAULTS + 3)           /* more attempts than this many faults can cause */

/* ---- the order's row in PostgreSQL: each atomic step below that writes it is one committed transaction ---- */
mtype = { none, pending, submitting, unconfirmed, failed, placed, rejected, canceled };
mtype status = none;
byte attempt = 0;                       /* the number of the last attempt: the fence */
bool lease_over[LIMIT];                 /* by attempt: its lease, and so its valid_until, is over */
bool parked = false;                    /* unconfirmed and left to an operator; the venue is still asked */
bool doubt = false;                     /* sent again, or will be, after an attempt that may have arrived */
bool answered = false;                  /* the client has its 201 */

/* ---- the venue and the wire ---- */
mtype = { unknown, live, refused };
mtype book[LIMIT] = unknown;            /* by client_order_id: what find() tells */
byte live_orders = 0;
bool window_over = false;               /* B: the time in which a known id is refused has passed */
byte unsent = 0;                        /* attempts that were claimed and have not sent yet */
byte on_the_wire = 0;
mtype = { no_reply, accepted, refusal, duplicate, stale, not_arrived, lost, heard, nobody };
mtype reply[LIMIT] = no_reply;          /* by attempt; heard: the worker has it; nobody: there is no worker any more */
#define NOTHING_UNDER_WAY (unsent == 0 && on_the_wire == 0)

byte faults = 0;

/* ---- what must hold. ONLY narrows the check to one of them, to show which one a missing safeguard breaks ---- */
#ifndef ONLY
#define CHECK_1 1
#define CHECK_2 1
#define CHECK_3 1
#define CHECK_4 1
#define CHECK_5 1
#else
#define CHECK_1 (ONLY == 1)
#define CHECK_2 (ONLY == 2)
#define CHECK_3 (ONLY == 3)
#define CHECK_4 (ONLY == 4)
#define CHECK_5 (ONLY == 5)
#endif
#define I1 (live_orders <= 1)
#define I2 (status == none || (status == placed && live_orders == 1) || parked || \
            ((status == rejected || status == canceled) && live_orders == 0))
#define I3 (live_orders == 0 || (status != failed && status != rejected && status != canceled))
#define I4 (!answered || status != none)
#define EVIDENCE (status == placed)     /* once an acknowledgement has been recorded */

inline check() {                        /* after every step that changes the row or the venue's book */
    assert(!CHECK_1 || I1);
    assert(!CHECK_3 || I3);
    assert(!CHECK_4 || I4);
#ifdef REACH                            /* "reach" variants: this must be found possible */
    assert(!(REACH))
#endif
}

/* ---- the switches that stand for one rule each ---- */
#ifdef NO_FENCE                         /* broken: a late negative answer counts against a newer attempt */
#define current(n) true
#else
#define current(n) (attempt == n)
#endif
#ifdef FRESH_ID                         /* broken: every attempt is a new order to the venue */
#define ID(n) n
#else
#define ID(n) 1
#endif

/* When a look-up can prove something: orders.verdicts.look_up_delay, and placement.sweep_orders after a lease's end. */
#if VENUE == REFUSES_STALE_REQUESTS
#ifdef EARLY_RELEASE                    /* broken: the look-up does not wait for valid_until */
#define SETTLED true
#else
#define SETTLED lease_over[attempt]
#endif
#elif defined(PUNCTUAL) && !defined(NO_SETTLE)
#define SETTLED (on_the_wire == 0)      /* assumed: the settle time outlasts every request */
#else
#define SETTLED true                    /* a request may outlive the settle time, or there is none */
#endif

/* Whether an order that was not found is sent again: orders.verdicts.conclude. */
#if VENUE == REFUSES_DUPLICATES || VENUE == REFUSES_STALE_REQUESTS || defined(RESEND)
#define MAY_RESEND true                 /* RESEND at class B or D, broken: as if the class made it safe */
#elif VENUE == REFUSES_RECENT_DUPLICATES
#define MAY_RESEND (!window_over)
#else
#define MAY_RESEND false
#endif

/* After "not found" an earlier request may still arrive, unless its stamp has made it void. */
#if VENUE == REFUSES_STALE_REQUESTS
#define DOUBTFUL false
#else
#define DOUBTFUL true
#endif

#ifdef IGNORE_DOUBT                     /* canceled and failed while an earlier request may still arrive */
#define IN_DOUBT false
#else
#define IN_DOUBT doubt
#endif

/* A refusal by the venue is final: always, or only while no other request of the order may still arrive. */
#ifdef BY_CONTENT                       /* the venue refuses some orders for what they say, every copy of them */
bool invalid = false;
#else
#define invalid false
#endif
#if defined(FORGETS_REJECTIONS) && !defined(BELIEVE_REJECTION)
#define REFUSAL_IS_FINAL (!doubt || invalid)
#else
#define REFUSAL_IS_FINAL true
#endif

#ifdef DROP_LATE_ACKNOWLEDGEMENT        /* broken: the edges for late answers are missing */
#define LATE_ANSWER_COUNTS false
#else
#define LATE_ANSWER_COUNTS (status == pending || status == failed || status == canceled || status == rejected)
#endif
#ifdef LATE_NOT_SENT                    /* proposed: "not sent" is a proof after the sweep, too */
#define LATE_PROOF_COUNTS (status == unconfirmed)
#else
#define LATE_PROOF_COUNTS false
#endif
#ifdef REQUEUE_UNCONFIRMED              /* broken */
#define MAY_REQUEUE (status == failed || status == unconfirmed)
#else
#define MAY_REQUEUE (status == failed)
#endif
#ifdef HASTY_OPERATOR                   /* broken: does not wait until no request can be under way */
#define MAY_MARK true
#else
#define MAY_MARK NOTHING_UNDER_WAY
#endif
#ifdef SHORT_MARGIN                     /* broken: a claim within the window may send after it */
#define WINDOW_MAY_END (on_the_wire == 0 && (unsent == 0 || (unsent == 1 && live_orders == 1 && reply[attempt] == no_reply)))
#else
#define WINDOW_MAY_END NOTHING_UNDER_WAY
#endif
#ifdef NO_MARK                          /* broken: nothing is written before the request leaves */
#define DUE (status == pending && attempt < 2)
#elif VENUE == REFUSES_RECENT_DUPLICATES && !defined(RESEND)
#define DUE (status == pending && !(doubt && window_over))
#else
#define DUE (status == pending)
#endif

#ifdef DUPLICATE_IS_REJECTED            /* broken: it means that an earlier attempt arrived */
#define record_duplicate rejected_by_venue
#else
#define record_duplicate outcome_unknown
#endif
#ifdef TIMEOUT_IS_NOT_SENT              /* broken: no answer is taken for no arrival */
#define record_no_answer not_sent
#else
#define record_no_answer outcome_unknown
#endif

/* ---- the edges: orders.lifecycle.TRANSITIONS. A step that finds no edge changes nothing: it is stale ---- */

inline acknowledged() {                 /* without a fence: it is evidence whenever it arrives */
    if
    :: status == submitting || status == unconfirmed || LATE_ANSWER_COUNTS -> status = placed; parked = false
    :: else -> skip
    fi;
    check();
    assert(!CHECK_5 || EVIDENCE)
}

inline rejected_by_venue(n) {
    if
    :: (status == submitting || status == unconfirmed) && current(n) ->
        if
        :: REFUSAL_IS_FINAL -> status = rejected; parked = false
        :: else -> status = unconfirmed; parked = true
        fi
    :: else -> skip
    fi;
    check()
}

inline not_sent(n) {                    /* and attempts_exhausted, in the same transaction, for any maximum */
    if
    :: (status == submitting || LATE_PROOF_COUNTS) && current(n) -> parked = false;
        if
        :: status = pending
        :: !IN_DOUBT -> status = failed
        :: IN_DOUBT -> status = unconfirmed; parked = true
        fi
    :: else -> skip
    fi;
    check()
}

inline outcome_unknown(n) {
    if
    :: status == submitting && current(n) -> status = unconfirmed
    :: else -> skip
    fi;
    check()
}

inline not_found(n) {
    if
    :: status == unconfirmed && current(n) && MAY_RESEND ->
        status = pending; parked = false; doubt = (doubt || DOUBTFUL)
    :: status == unconfirmed && current(n) && !MAY_RESEND -> parked = true
    :: else -> skip
    fi;
    check()
}

/* ---- the wire: a request is lost, doubled, or arrives, after anything else if it so happens ---- */

inline answer(n, what) {
    if
    :: reply[n] == no_reply || reply[n] == lost ->
        if
        :: reply[n] = what
        :: fault; reply[n] = lost; printf("MSC: the reply to attempt %d is lost\n", n)
        fi
    :: else -> skip
    fi
}

#if VENUE == REFUSES_DUPLICATES
#define REMEMBERS(n) (book[ID(n)] != unknown)
#elif VENUE == REFUSES_RECENT_DUPLICATES
#define REMEMBERS(n) (book[ID(n)] != unknown && !window_over)
#else
#define REMEMBERS(n) false
#endif
#ifdef FORGETS_REJECTIONS               /* the venue accepts an id that it has refused before */
#define KNOWN(n) (REMEMBERS(n) && book[ID(n)] == live)
#else
#define KNOWN(n) REMEMBERS(n)
#endif
#if VENUE == REFUSES_STALE_REQUESTS && !defined(STAMP_AT_SEND)
#define VOID(n) lease_over[n]           /* valid_until is set by the claim, and is in every request */
#else
#define VOID(n) false                   /* STAMP_AT_SEND, broken: a frozen worker's request looks fresh */
#endif

proctype request(byte n) {
    if
    :: atomic { fault; on_the_wire--; printf("MSC: the request of attempt %d is lost\n", n);
                if :: reply[n] == no_reply -> reply[n] = lost :: else -> skip fi }
    :: atomic { on_the_wire--;
                if
                :: VOID(n) -> printf("MSC: the venue refuses attempt %d as stale\n", n); answer(n, stale)
                :: !VOID(n) && KNOWN(n) -> printf("MSC: the venue refuses attempt %d as a duplicate\n", n);
                    answer(n, duplicate)
                :: !VOID(n) && !KNOWN(n) && !invalid -> printf("MSC: the venue accepts attempt %d\n", n);
                    book[ID(n)] = live; live_orders++; check(); answer(n, accepted)
                :: !VOID(n) && !KNOWN(n) -> printf("MSC: the venue rejects attempt %d\n", n);
                    if :: book[ID(n)] == unknown -> book[ID(n)] = refused :: else -> skip fi;
                    check(); answer(n, refusal)
                fi }
#ifdef DUPLICATES                       /* something between us and the venue sends a request twice */
    :: atomic { fault; printf("MSC: the request of attempt %d is doubled\n", n);
                on_the_wire++; run request(n); run request(n) }
#endif
    fi
}

/* ---- one attempt, by its own worker: orders.engine, beats 2 and 3. It may be suspended at any step ---- */

#ifdef PUNCTUAL                         /* assumed: no byte leaves after the lease has ended */
#define MAY_SEND(n) (!lease_over[n])
#else
#define MAY_SEND(n) true                /* the engine looked at the clock, was frozen, and sends on waking */
#endif

#define gone     reply[n] = nobody; outcome = none
#define tell     printf("MSC: attempt %d records: %e; the order is %e\n", n, outcome, status); gone
#define dies     fault; gone; printf("MSC: the worker of attempt %d dies\n", n)

proctype placement(byte n) {
    mtype outcome = none;
    if
    :: atomic { MAY_SEND(n) -> unsent--; on_the_wire++; run request(n); printf("MSC: attempt %d sends\n", n);
#ifdef NO_MARK
                if :: status == pending -> status = submitting :: else -> skip fi
#endif
       }
    :: atomic { lease_over[n] -> unsent--; outcome = not_arrived;
                printf("MSC: attempt %d sees that it is late\n", n); goto record }
    :: atomic { fault; unsent--; outcome = not_arrived;
                printf("MSC: attempt %d finds no connection\n", n); goto record }
    :: atomic { dies; unsent--; goto over }
    fi;
    if
    :: atomic { reply[n] != no_reply -> outcome = reply[n]; reply[n] = heard }
    :: atomic { reply[n] == no_reply && faults < FAULTS -> faults++; outcome = lost; reply[n] = heard;
                printf("MSC: attempt %d gives up waiting\n", n) }
    :: atomic { dies; goto over }
    fi;
record:
    if
    :: atomic { outcome == accepted -> acknowledged(); tell }
    :: atomic { outcome == refusal -> rejected_by_venue(n); tell }
    :: atomic { outcome == stale || outcome == not_arrived -> not_sent(n); tell }
    :: atomic { outcome == duplicate -> record_duplicate(n); tell }
    :: atomic { outcome == lost -> record_no_answer(n); tell }
    :: atomic { dies }
    fi;
over:
    skip
}

/* ---- the processes around it ---- */

proctype api() {
#ifdef ANSWER_BEFORE_COMMIT             /* broken */
    atomic { answered = true; printf("MSC: the client gets its 201\n") };
#endif
    if
    :: atomic { fault; printf("MSC: the web worker dies\n"); goto over }
    :: atomic { status = pending; printf("MSC: the order is stored\n"); check() }
    fi;
    if
    :: atomic { answered = true; check() }
    :: fault
    fi;
over:
    assert(!CHECK_4 || I4)
}

proctype claims() {                     /* lifecycle.claim: any number of workers, each due order to one of them */
end:
    do
    :: atomic { status == pending && !DUE && attempt > 0 && window_over -> status = unconfirmed;
                printf("MSC: the sweep sees that the window is over: the order is unconfirmed\n"); check() }
    :: atomic { DUE ->
                attempt++; assert(attempt < LIMIT); unsent++;
#ifndef NO_MARK
                status = submitting;
#endif
                printf("MSC: attempt %d claims the order\n", attempt); run placement(attempt); check() }
    od
}

proctype clock() {                      /* the lease ends, placement.sweep_orders follows; B's window ends */
end:
    do
    :: atomic { status == submitting && !lease_over[attempt] && reply[attempt] != nobody && faults < FAULTS -> faults++;
                lease_over[attempt] = true; printf("MSC: attempt %d stands still until its lease ends\n", attempt) }
    :: atomic { !lease_over[attempt] && (status == unconfirmed || (status == submitting && reply[attempt] == nobody)) ->
                lease_over[attempt] = true; printf("MSC: the lease of attempt %d ends\n", attempt) }
    :: atomic { status == submitting && lease_over[attempt] -> status = unconfirmed;
                printf("MSC: the sweep makes the order unconfirmed\n"); check() }
#if VENUE == REFUSES_RECENT_DUPLICATES  /* assumed: longer than any delay */
    :: atomic { !window_over && attempt > 0 && WINDOW_MAY_END -> window_over = true;
                printf("MSC: the venue's window is over\n") }
#endif
    od
}

proctype reconciliation() {             /* ask, then write: orders.reconciliation. The world may move in between */
    byte n; mtype found; bool was_parked;
end:
    do
    :: atomic { status == unconfirmed && (parked || SETTLED) && !(parked && book[ID(attempt)] == unknown) ->
                n = attempt; found = book[ID(n)]; was_parked = parked;
                printf("MSC: the look-up for attempt %d says: %e\n", n, found) };
        if
        :: atomic { found == live -> acknowledged();
                    printf("MSC: look-up records: found; the order is %e\n", status) }
        :: atomic { found == refused -> rejected_by_venue(n);
                    printf("MSC: look-up records: rejected; the order is %e\n", status) }
        :: atomic { found == unknown && !was_parked -> not_found(n);
                    printf("MSC: look-up records: not found; the order is %e\n", status) }
        :: fault                        /* it dies, and the next one asks again */
        fi;
        atomic { n = 0; found = unknown; was_parked = false }
    od
}

proctype people() {                     /* the client and the operator: services.cancel_orders, requeue_orders, marks */
end:
    do
    :: atomic { (status == pending || status == failed) && !IN_DOUBT -> status = canceled;
                printf("MSC: the order is canceled here\n"); check() }
    :: atomic { MAY_REQUEUE -> status = pending; parked = false;
                printf("MSC: an operator requeues the order\n"); check() }
    :: atomic { parked && book[ID(attempt)] == live -> status = placed; parked = false;
                printf("MSC: an operator looks and marks the order placed\n"); check() }
    :: atomic { parked && book[ID(attempt)] == refused && MAY_MARK -> status = rejected; parked = false;
                printf("MSC: an operator looks and finds the order rejected\n"); check() }
    :: atomic { parked && book[ID(attempt)] == unknown && MAY_MARK -> status = failed; parked = false; doubt = false;
                printf("MSC: an operator looks and marks the order not placed\n"); check() }
    od
}

init {
#ifdef BY_CONTENT
    if :: invalid = true :: skip fi;
#endif
    atomic { run api(); run claims(); run clock(); run reconciliation(); run people() };
    timeout -> atomic {                 /* nothing can move any more */
        printf("MSC: all is quiet: the order is %e, %d live at the venue\n", status, live_orders);
        assert(!CHECK_2 || I2)
    }
}
