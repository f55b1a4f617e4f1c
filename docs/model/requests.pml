/* How QuikTrade cancels and replaces one order that works at its venue, and everything that can go wrong on the way.
 *
 * placement.pml says how to read this, and README.md lists the names. The client asks for two replaces and a cancel,
 * or fewer, at any moments. The first replace (R1) asks for another quantity and leaves the price as it is, the second
 * one (R2) asks for another price and leaves the quantity: so what a request says depends on what is believed of the
 * order when the request is first claimed. Meanwhile the order is filled, or its day ends.
 */

#define REFUSES_DUPLICATES        1     /* A: recognises the id of a request that it has decided, for ever */
#define REFUSES_RECENT_DUPLICATES 2     /* B: likewise, but forgets when its window is over */
#define REFUSES_STALE_REQUESTS    3     /* C: a request is void after its valid_until, the end of its lease */
#define NOTHING                   4     /* D: takes whatever arrives */
#ifndef VENUE
#define VENUE REFUSES_DUPLICATES
#endif
#ifndef FAULTS
#define FAULTS 2
#endif
#if defined(NO_REPLACE)                 /* how many replaces the client may ask for */
#define REPLACES 0
#elif defined(ONE_REPLACE)
#define REPLACES 1
#else
#define REPLACES 2
#endif
#define fault    faults < FAULTS -> faults++
#define SLOTS    6                      /* more attempts at a time than the faults can cause */

/* ---- what a request or an order says: the total quantity and the price, both absolute ---- */
#define TERMS(q, p)     ((q) * 2 + (p))
#define QUANTITY(terms) ((terms) / 2)
#define PRICE(terms)    ((terms) % 2)
#define AT_FIRST        TERMS(3, 0)
#define MAX(a, b)       ((a) > (b) -> (a) : (b))
/* Asked to go below what it has executed, a venue amends the quantity to that. */
#define AMENDED(terms, f) TERMS(MAX(QUANTITY(terms), f), PRICE(terms))

/* ---- the rows in PostgreSQL: each atomic step that writes them is one committed transaction ---- */
#define R1 0
#define R2 1
#define C  2
mtype = { absent, pending, submitting, sent, unconfirmed, accepted, refused, moot, superseded, failed };
mtype status[3] = absent;               /* of the requests */
byte attempt[3] = SLOTS;                   /* by request, its last attempt: the fence. SLOTS: none */
bool in_doubt[3] = false;               /* an earlier attempt may have arrived, or may arrive */
bool repeated[3] = false;               /* the request was sent again while in doubt */
bool turned_down[3] = false;            /* refused while in doubt: to be looked up, not to be sent again */
bool parked[3] = false;                 /* unconfirmed and left to an operator; the venue is still asked */
byte asked[2] = 0;                      /* by replace, frozen at its first claim: what it says, */
byte before[2] = 0;                     /* the terms that it was made from, */
byte original[2] = 0;                   /* and the id that the venue had accepted last (41) */
bool answered = false;                  /* the client has a 202 for the cancel */

mtype = { nothing, canceled, expired };
byte terms = AT_FIRST;                  /* what we believe of the order */
byte current = 0;                       /* the id that the venue accepted last: 0 is the order's, r + 1 a replace's */
byte filled = 0;
mtype ended = nothing;
#define OVER       (ended != nothing || filled >= QUANTITY(terms))
#define OPEN(r)    (status[r] == pending || status[r] == submitting || status[r] == sent || status[r] == unconfirmed)
#define REFUTED(r) (status[r] == refused || status[r] == moot || status[r] == superseded || status[r] == failed)

/* ---- the venue and the wire ---- */
byte v_terms = AT_FIRST;
byte v_current = 0;
byte v_filled = 0;
mtype v_ended = nothing;
#define V_OVER     (v_ended != nothing || v_filled >= QUANTITY(v_terms))
bool applied[3] = false;
#ifdef FRESH_ID
#define BOOK SLOTS
#else
#define BOOK 3
#endif
bool restated = false;
bool window_over = false;               /* B: the time in which an id is recognised has passed */
mtype = { no_reply, yes, no, duplicate, taken, stale, lost };
mtype book[BOOK] = no_reply;            /* by the id of a request: what the venue answered to it */

/* ---- attempts, each by its own worker. A slot is used again when nothing is left of its attempt ---- */
#define FREE 3
byte about[SLOTS] = FREE;                  /* the request */
mtype = { nobody, claimed, waiting };
mtype worker[SLOTS] = nobody;
bool lease_over[SLOTS];
byte wire[SLOTS] = 0;                   /* copies that the venue has not decided; what they say, and their 41 */
byte says[SLOTS] = 0;
byte original_of[SLOTS] = 0;
mtype reply[SLOTS] = no_reply;
byte unsent[3] = 0;                     /* by request: how many workers have not sent yet, */
byte under_way[3] = 0;                  /* and how many copies are on the wire */
#define NOTHING_UNDER_WAY (unsent[R1] + unsent[R2] + unsent[C] + under_way[R1] + under_way[R2] + under_way[C] == 0)

/* ---- the venue's reports, numbered; the session reads them in this order, at any time later ---- */
#define FILL(quantity)       (quantity)
#define EXPIRED              8
#define RESTATED             9
#define CANCELED             10
#define NOT_DONE(r)          (12 + r)
#define REPLACED(r, t)       (16 + r * 16 + t)      /* with the terms as they are from then on */
#ifdef REPORTS
#define LOG (FAULTS + 8)
byte log[LOG];
byte reported = 0;
byte read = 0;
#define ALL_READ (read == reported)
inline report(what) { assert(reported < LOG); log[reported] = what; reported++ }
#else
#define ALL_READ true
inline report(what) { skip }
#endif

byte faults = 0;
byte k = 0;
bool fresh = false;                     /* the order's row is as it was when the venue was asked */

/* ---- what must hold ---- */
#ifndef ONLY
#define CHECK(n) true
#else
#define CHECK(n) (ONLY == n)
#endif
#define BELIEVED(r) ((!REFUTED(r) || !applied[r]) && (status[r] != accepted || applied[r]))
#define DECIDED(r)  (!OPEN(r) || parked[r])
#define AT_REST     (DECIDED(R1) && DECIDED(R2) && DECIDED(C) && ALL_READ && \
                     terms == v_terms && ended == v_ended && filled == v_filled && current == v_current)

inline tidy(n) {                        /* what is not of use any more */
    if
#ifndef YES_AGAIN
    :: about[n] != FREE && worker[n] == waiting && !OPEN(about[n]) -> worker[n] = nobody    /* nothing it hears counts */
#endif
    :: else -> skip
    fi;
    if :: worker[n] == nobody -> reply[n] = no_reply :: else -> skip fi;
    if :: wire[n] == 0 && worker[n] != claimed -> says[n] = 0; original_of[n] = 0 :: else -> skip fi;
    if
    :: about[n] != FREE && worker[n] == nobody && wire[n] == 0 && attempt[about[n]] != n -> about[n] = FREE;
        lease_over[n] = false
    :: else -> skip
    fi
}

inline forget(r) {                      /* what nobody asks for once a request is decided */
    if
    :: !OPEN(r) && attempt[r] != SLOTS -> attempt[r] = SLOTS;
        in_doubt[r] = false; repeated[r] = false; turned_down[r] = false; parked[r] = false;
        if :: r != C -> before[r] = 0; original[r] = 0 :: else -> skip fi;
        k = 0; do :: k < SLOTS -> tidy(k); k++ :: else -> break od; k = 0
    :: else -> skip
    fi
}

inline check() {                        /* after every step that changes the rows or the venue */
    d_step { forget(R1); forget(R2); forget(C) }
    assert(!CHECK(1) || (BELIEVED(R1) && BELIEVED(R2) && BELIEVED(C)));
    assert(!CHECK(3) || v_ended != canceled || ended == canceled || OPEN(C));
    assert(!CHECK(4) || !answered || status[C] != absent);
#ifdef REACH
    assert(!(REACH))
#endif
}

/* ---- the switches that stand for one rule each ---- */
#ifdef NO_FENCE                         /* broken: a late refusal counts against a newer attempt */
#define MAY_REFUSE(r, n) true
bool doubted[SLOTS];                    /* by attempt: whether the request was in doubt when it was claimed */
#define DOUBTED(r, n) doubted[n]
#else
#define MAY_REFUSE(r, n) (status[r] != pending && LATEST(r, n))
#endif
#define LATEST(r, n) (attempt[r] == n)
#ifdef FRESH_ID                         /* broken: every attempt is a new request to the venue */
#define ID(r, n) n
#else
#define ID(r, n) r
#endif
#ifdef NO_FREEZE                        /* broken: a re-send says what follows from the order as it is by then */
#define FROZEN(r) false
#else
#define FROZEN(r) (attempt[r] != SLOTS)
#endif
#if VENUE == REFUSES_STALE_REQUESTS
#ifdef EARLY_RELEASE                    /* broken: the look-up does not wait for valid_until */
#define SETTLED(r) true
#else
#define SETTLED(r) lease_over[attempt[r]]
#endif
#elif defined(PUNCTUAL) && !defined(NO_SETTLE) && !defined(LATE)
#ifdef TAKEN_IS_SETTLED                 /* broken: what the venue has taken is looked up as if it were decided */
#define SETTLED(r) (under_way[r] == 0 || (status[r] == sent && !repeated[r]))
#else
#define SETTLED(r) (under_way[r] == 0)  /* assumed: the settle time outlasts every request */
#endif
#else
#define SETTLED(r) true                 /* a request may outlive the settle time, or there is none */
#endif
#if VENUE == REFUSES_STALE_REQUESTS || defined(PUNCTUAL)
#define STAYS_IN_DOUBT false            /* once the look-up has shown the old terms, no earlier attempt can arrive */
#else
#define STAYS_IN_DOUBT true
#endif
#if VENUE == REFUSES_RECENT_DUPLICATES && !defined(RESEND)
#define MAY_RESEND (!window_over)
#else
#define MAY_RESEND true
#endif
#if VENUE == REFUSES_DUPLICATES || defined(RESEND_ANYWAY)
#define MAY_RESEND_OVER_OTHERS true     /* neither the old nor the new terms: sent again where the id is recognised */
#else
#define MAY_RESEND_OVER_OTHERS false
#endif
#ifdef BELIEVE_REPEAT                   /* broken: a refusal is believed although an earlier attempt may have arrived */
#define DOUBTED(r, n) false
#elif !defined(NO_FENCE)
#define DOUBTED(r, n) in_doubt[r]
#endif
#ifdef NO_ANSWER_IS_REFUSED             /* broken */
#define DOUBTED_SILENCE false
#else
#define DOUBTED_SILENCE true
#endif
#ifdef BELIEVE_REFUSAL_REPORT           /* broken: a report of a refusal closes a request of which a copy is under way */
#define DOUBTED_REPORT(r) false
#else
#define DOUBTED_REPORT(r) (in_doubt[r] || repeated[r])
#endif
#ifdef SUPERSEDE_IN_DOUBT               /* broken: a replace that waits to be sent again is dropped for a cancel */
#define NOT_SENT(r) (status[r] == pending)
#else
#define NOT_SENT(r) (status[r] == pending && !in_doubt[r])
#endif
#ifdef NO_GATE                          /* broken: a replace is sent while another one is unanswered */
#define MAY_REPLACE (!OVER && !OPEN(C))
#else
#define MAY_REPLACE (!OVER && !OPEN(C) && !OPEN(R1) && !OPEN(R2))
#endif

/* ---- what becomes known. A step that does not fit the row changes nothing: it is stale ---- */

inline drop_unsent() {                  /* in the transaction that ends the order here or asks for a cancel */
    d_step {
        if :: NOT_SENT(R1) -> status[R1] = superseded :: else -> skip fi;
        if :: NOT_SENT(R2) -> status[R2] = superseded :: else -> skip fi
    }
}

inline accept(r) {                      /* without a fence: it is evidence whenever it arrives */
    fresh = false;
    if
#ifdef YES_AGAIN                        /* broken: an answer counts although a report has said the same before */
    :: status[r] == accepted && r != C -> replace(r, asked[r])
    :: status[r] == accepted && r == C -> skip
#else
    :: status[r] == accepted -> skip
#endif
    :: status[r] != accepted && r == C ->
        status[C] = accepted;
        if :: ended == nothing -> ended = canceled :: else -> skip fi;
#ifdef CANCEL_CLOSES_REPLACE            /* broken: as if a report in sequence had said so */
        if :: OPEN(R1) -> status[R1] = moot :: else -> skip fi;
        if :: OPEN(R2) -> status[R2] = moot :: else -> skip fi;
#endif
        drop_unsent()
    :: status[r] != accepted && r != C -> status[r] = accepted; replace(r, asked[r])
    fi
}

#ifdef NO_ORDER                         /* broken: the late report of an older replace sets the terms back */
#define NOT_OLDER(r) true
#else
#define NOT_OLDER(r) (current <= r + 1)
#endif

inline replace(r, t) {
    if
    :: NOT_OLDER(r) -> assert(!CHECK(6) || current <= r + 1); terms = AMENDED(t, filled); current = r + 1
    :: else -> skip
    fi
}

inline refuse(r, n) {                   /* the venue's answer to attempt n */
    if
    :: OPEN(r) && MAY_REFUSE(r, n) -> fresh = false;
        if
        :: !DOUBTED(r, n) -> status[r] = refused
        :: DOUBTED(r, n) && LATEST(r, n) -> status[r] = unconfirmed; turned_down[r] = true
        :: DOUBTED(r, n) && !LATEST(r, n) -> skip
        fi
    :: else -> skip
    fi;
    check()
}

inline recognised(r, n) {               /* it knows the id: an earlier attempt arrived, with whatever result */
    if
    :: OPEN(r) && status[r] != pending && LATEST(r, n) -> fresh = false;
        status[r] = unconfirmed; in_doubt[r] = true; turned_down[r] = true
    :: else -> skip
    fi
}

inline not_sent(r, n) {
    if
    :: (status[r] == submitting || status[r] == unconfirmed) && LATEST(r, n) && !turned_down[r] -> fresh = false;
        if
        :: status[r] = pending
        :: r != C && !in_doubt[r] -> status[r] = failed
#ifdef FAIL_IN_DOUBT                    /* broken: attempts that are proved not sent say nothing about earlier ones */
        :: r != C && in_doubt[r] -> status[r] = failed
#endif
        fi
    :: else -> skip
    fi;
    check()
}

inline outcome_unknown(r, n) {
    if
    :: status[r] == submitting && LATEST(r, n) -> fresh = false;
        if
        :: DOUBTED_SILENCE -> status[r] = unconfirmed; in_doubt[r] = true
        :: !DOUBTED_SILENCE -> status[r] = refused
        fi
    :: else -> skip
    fi;
    check()
}

/* ---- the wire and the venue ---- */

#define WHERE(holds) if :: holds(0) -> n = 0 :: holds(1) -> n = 1 :: holds(2) -> n = 2 :: holds(3) -> n = 3 \
                        :: holds(4) -> n = 4 :: holds(5) -> n = 5 fi
#define ON_THE_WIRE(n) (wire[n] > 0)
#define CLAIMED(n)     (worker[n] == claimed)
#define HEARS(n)       (worker[n] == waiting && (reply[n] != no_reply || faults < FAULTS))

inline off_the_wire(n) { wire[n]--; under_way[about[n]]-- }

inline answer(n, what) {
    if
    :: worker[n] == waiting && (reply[n] == no_reply || reply[n] == lost || reply[n] == taken) ->
        if
        :: reply[n] = what
        :: fault; reply[n] = lost; printf("MSC: the reply to attempt %d is lost\n", n)
        fi
    :: else -> skip
    fi
}

#if VENUE == REFUSES_DUPLICATES
#define KNOWN(r, n) (book[ID(r, n)] != no_reply)
#elif VENUE == REFUSES_RECENT_DUPLICATES
#define KNOWN(r, n) (book[ID(r, n)] != no_reply && !window_over)
#else
#define KNOWN(r, n) false
#endif
#if VENUE == REFUSES_STALE_REQUESTS
#define VOID(n) lease_over[n]
#else
#define VOID(n) false
#endif
#ifdef CHAIN                            /* the venue refuses a replace of anything but the id that it accepted last */
#define WRONG_LINK(r, what) (r != C && what != v_current)
#else
#define WRONG_LINK(r, what) false
#endif

inline turn_down(r, n, why) {
    printf("MSC: the venue refuses attempt %d: %e\n", n, why);
    book[ID(r, n)] = no; report(NOT_DONE(r)); answer(n, no)
}

mtype = { too_late, wrong_link, as_it_pleases };

inline arrive(r, n) {
    assert(!CHECK(5) || r == C || says[n] == asked[r]);     /* one id, one content */
    if
    :: VOID(n) -> printf("MSC: the venue refuses attempt %d as stale\n", n); answer(n, stale)
    :: !VOID(n) && KNOWN(r, n) -> printf("MSC: the venue recognises attempt %d\n", n);
        if :: true -> answer(n, book[ID(r, n)]) :: true -> answer(n, duplicate) fi
    :: !VOID(n) && !KNOWN(r, n) && V_OVER -> turn_down(r, n, too_late)
    :: !VOID(n) && !KNOWN(r, n) && !V_OVER && WRONG_LINK(r, original_of[n]) ->
        printf("MSC: attempt %d names an id that the venue did not accept last\n", n);
        assert(!CHECK(6) || applied[r] || !OPEN(r)); turn_down(r, n, wrong_link)
    :: !VOID(n) && !KNOWN(r, n) && !V_OVER && !WRONG_LINK(r, original_of[n]) ->
        if
        :: fault; turn_down(r, n, as_it_pleases)
        :: r == C -> v_ended = canceled; applied[C] = true; book[ID(r, n)] = yes; report(CANCELED);
            printf("MSC: the venue cancels the order, by attempt %d\n", n); check(); answer(n, yes)
        :: r != C ->
            printf("MSC: the venue replaces by R%d, attempt %d: quantity %d, price %d\n", r + 1, n,
                QUANTITY(AMENDED(says[n], v_filled)), PRICE(AMENDED(says[n], v_filled)));
            assert(!CHECK(5) || !applied[r] || v_terms == AMENDED(says[n], v_filled));   /* once in effect */
            assert(!CHECK(5) || !(r == R1 && applied[R2]));                          /* never after a newer one */
            v_terms = AMENDED(says[n], v_filled); v_current = r + 1; applied[r] = true;
            book[ID(r, n)] = yes; report(REPLACED(r, v_terms));
            check(); answer(n, yes)
        fi
    fi
}

proctype network() {                    /* what is on the wire arrives in any order, or does not arrive */
    byte n; byte r;
end:
    do
    :: atomic { WHERE(ON_THE_WIRE); r = about[n];
        if
        :: fault; off_the_wire(n); printf("MSC: the request of attempt %d is lost\n", n);
            if :: reply[n] == no_reply -> reply[n] = lost :: else -> skip fi
        :: off_the_wire(n); arrive(r, n)
#ifdef LATER                            /* the venue takes the request and decides at some later time */
        :: reply[n] == no_reply && worker[n] == waiting && !VOID(n) && !KNOWN(r, n) ->
            printf("MSC: the venue takes attempt %d\n", n); answer(n, taken)
#endif
#ifdef DUPLICATES                       /* something between us and the venue sends a request twice */
        :: wire[n] == 1 && faults < FAULTS -> faults++; printf("MSC: the request of attempt %d is doubled\n", n);
            wire[n]++; under_way[r]++
#endif
        fi;
        tidy(n); n = 0; r = 0 }
    od
}

/* ---- the workers: any one may be suspended at any step ---- */

#if defined(PUNCTUAL) && !defined(LATE) /* assumed: no byte leaves after the lease has ended */
#define MAY_SEND(n) (!lease_over[n])
#else
#define MAY_SEND(n) true
#endif
#define ends     worker[n] = nobody; reply[n] = no_reply
#define tell     printf("MSC: attempt %d records what it heard; the request is %e\n", n, status[r]); ends

proctype workers() {
    byte n; byte r;
end:
    do
    :: atomic { WHERE(CLAIMED); r = about[n];
        if
        :: MAY_SEND(n) -> unsent[r]--; wire[n] = 1; under_way[r]++; worker[n] = waiting;
            printf("MSC: attempt %d sends\n", n)
        :: lease_over[n] -> unsent[r]--; printf("MSC: attempt %d sees that it is late\n", n);
            not_sent(r, n); ends
        :: fault; unsent[r]--; printf("MSC: attempt %d finds no connection\n", n); not_sent(r, n); ends
        :: fault; unsent[r]--; printf("MSC: the worker of attempt %d dies\n", n); ends
        fi;
        tidy(n); n = 0; r = 0 }
    :: atomic { WHERE(HEARS); r = about[n];
        if                              /* a reply is heard and recorded at any time later */
        :: reply[n] == yes -> accept(r); check(); tell
        :: reply[n] == no -> refuse(r, n); tell
        :: reply[n] == duplicate -> recognised(r, n); tell
        :: reply[n] == taken -> 
            if
            :: status[r] == submitting && LATEST(r, n) -> status[r] = sent; fresh = false
            :: else -> skip
            fi;
            tell
        :: reply[n] == stale -> not_sent(r, n); tell
        :: reply[n] == lost -> outcome_unknown(r, n); tell
        :: reply[n] == no_reply && faults < FAULTS -> faults++; printf("MSC: attempt %d gives up waiting\n", n);
            outcome_unknown(r, n); ends
        :: fault; printf("MSC: the worker of attempt %d dies\n", n); ends
        fi;
        tidy(n); n = 0; r = 0 }
    od
}

/* ---- the processes around it ---- */

proctype client() {                     /* the API: what a client asks for, in this order or another, or not at all */
    do
    :: atomic { REPLACES > 0 && status[R1] == absent && MAY_REPLACE -> status[R1] = pending;
                printf("MSC: the client asks for the quantity 1 (R1)\n") }
    :: atomic { REPLACES > 1 && status[R1] != absent && status[R2] == absent && MAY_REPLACE -> status[R2] = pending;
                printf("MSC: the client asks for the price 1 (R2)\n") }
#ifndef NO_CANCEL
#ifdef ANSWER_BEFORE_COMMIT             /* broken */
    :: atomic { status[C] == absent && !OVER -> answered = true; printf("MSC: the client has its 202\n"); check() }
#endif
    :: atomic { status[C] == absent && !OVER -> status[C] = pending; drop_unsent();
                printf("MSC: the client asks for a cancel (C); R1 is %e, R2 is %e\n", status[R1], status[R2]); check();
                answered = true }
#endif
    :: break
    od
}

inline claim(r) {
    n = 0; do :: about[n] == FREE -> break :: about[n] != FREE -> n++; assert(n < SLOTS) od;
    if
    :: r != C && !FROZEN(r) ->
        assert(!CHECK(6) || V_OVER || restated || terms == v_terms);    /* it is made from what the venue has */
        before[r] = terms; original[r] = current;
        if
        :: r == R1 -> asked[r] = TERMS(1, PRICE(terms))
        :: else -> asked[r] = TERMS(QUANTITY(terms), 1)
        fi;
#ifdef CURRENT_WHEN_ASKED               /* broken: 41 of the next request names one that may be refused */
        current = r + 1
#endif
    :: else -> skip
    fi;
#ifdef NO_FENCE
    doubted[n] = in_doubt[r];
#endif
    about[n] = r; worker[n] = claimed; unsent[r]++; repeated[r] = (repeated[r] || in_doubt[r]); fresh = false;
    if :: r != C -> says[n] = asked[r]; original_of[n] = original[r] :: else -> skip fi;
    old = attempt[r]; attempt[r] = n;
    if :: old != SLOTS -> tidy(old) :: else -> skip fi;
#ifndef NO_MARK
    status[r] = submitting;
#endif
    printf("MSC: attempt %d claims R%d (3 is C)\n", n, r + 1);
    old = 0; n = 0
}

#ifdef NO_MARK                          /* broken: nothing is written before the request leaves */
#define CLAIMS_LEFT(r) (attempt[r] == SLOTS)
#else
#define CLAIMS_LEFT(r) true
#endif
#if VENUE == REFUSES_RECENT_DUPLICATES && !defined(RESEND) && !defined(NO_MARGIN)
#define IN_TIME(r) (!in_doubt[r] || !window_over)
#else
#define IN_TIME(r) true
#endif
/* Nothing but a cancel is sent while a replace is unanswered, and a cancel not before the replace's own attempt ended. */
#define DUE(r)   (status[r] == pending && !OVER && !OPEN(C) && IN_TIME(r) && CLAIMS_LEFT(r))
/* A cancel cannot double, so one without an answer is sent again at once. */
#define DUE_C    ((status[C] == pending || (status[C] == unconfirmed && !turned_down[C] && SENT_AGAIN)) && !OVER && \
                  status[R1] != submitting && status[R2] != submitting && CLAIMS_LEFT(C))
#define SENT_AGAIN true

proctype engine() {
    byte n; byte old;
end:
    do
    :: atomic { DUE(R1) -> claim(R1); check() }
    :: atomic { DUE(R2) -> claim(R2); check() }
    :: atomic { DUE_C -> claim(C); check() }
    od
}

inline pass_over(r) {                   /* what is not sent (again): the order is over, or the window */
    if
    :: status[r] == pending && OVER && NOT_SENT(r) -> status[r] = moot
    :: status[r] == pending && OVER && !NOT_SENT(r) -> status[r] = unconfirmed
    :: status[r] == pending && !OVER && NOT_SENT(r) && r != C && OPEN(C) -> status[r] = superseded
    :: status[r] == pending && !OVER && !IN_TIME(r) && r != C -> status[r] = unconfirmed
    fi;
    printf("MSC: the sweep: R%d is %e\n", r + 1, status[r]); check()
}
#define PASSED_OVER(r) (status[r] == pending && CLAIMS_LEFT(r) && \
                        (OVER || (r != C && ((NOT_SENT(r) && OPEN(C)) || !IN_TIME(r)))))

inline all_leases(r) {                  /* those of earlier attempts have ended before */
    d_step { n = 0; do :: n < SLOTS -> if :: about[n] == r -> lease_over[n] = true :: else -> skip fi; n++ :: else -> break od; n = 0 }
}

inline lease_ends(r) {
    if
    :: status[r] == submitting && !lease_over[attempt[r]] && worker[attempt[r]] != nobody && faults < FAULTS -> faults++;
        all_leases(r); printf("MSC: attempt %d stands still until its lease ends\n", attempt[r])
    :: (status[r] == unconfirmed || (status[r] == submitting && worker[attempt[r]] == nobody)) && !lease_over[attempt[r]] ->
        all_leases(r); printf("MSC: the lease of attempt %d ends\n", attempt[r])
    :: status[r] == submitting && lease_over[attempt[r]] ->
        status[r] = unconfirmed; in_doubt[r] = true; fresh = false;
        printf("MSC: the sweep makes R%d unconfirmed\n", r + 1); check()
    fi
}

proctype clock() {
    byte n;
end:
    do
    :: atomic { PASSED_OVER(R1) -> pass_over(R1) }
    :: atomic { PASSED_OVER(R2) -> pass_over(R2) }
    :: atomic { PASSED_OVER(C) -> pass_over(C) }
    :: atomic { lease_ends(R1) }
    :: atomic { lease_ends(R2) }
    :: atomic { lease_ends(C) }
#if VENUE == REFUSES_RECENT_DUPLICATES
    :: atomic { !window_over && NOTHING_UNDER_WAY -> window_over = true;
                printf("MSC: the venue's window is over\n") }
#endif
    od
}

proctype market() {                     /* what happens to the order at the venue of itself */
    do
#ifndef NO_FILLS
    :: atomic { !V_OVER -> 
                if
                :: v_filled + 2 <= QUANTITY(v_terms) -> v_filled = v_filled + 2; report(FILL(2))
                :: else -> v_filled++; report(FILL(1))
                fi;
                printf("MSC: the venue has filled %d\n", v_filled); check() }
#endif
#ifndef NO_CLOSE
    :: atomic { !V_OVER -> v_ended = expired; report(EXPIRED); printf("MSC: the day ends at the venue\n"); check() }
#endif
#ifdef RESTATES                         /* the venue changes the order without being asked */
    :: atomic { !V_OVER && !restated -> restated = true; v_terms = TERMS(4, PRICE(v_terms)); report(RESTATED);
                printf("MSC: the venue restates the quantity as 4\n") }
#endif
    :: break
    od
}

/* ---- look-ups: ask, then write. The world may move in between ---- */

#define SHOWS(r)   (r == C -> V_OVER : V_OVER || v_terms != before[r])      /* something that is evidence at any time */
#define ASKED(r)   ((status[r] == unconfirmed || status[r] == sent) && \
                    (SHOWS(r) || (SETTLED(r) && !parked[r] && (r != C || turned_down[r] || status[r] == sent))))
#ifdef REPORTS
#define UNKNOWN_CHANGE false            /* the session hears of it */
#else
#define UNKNOWN_CHANGE (v_ended != ended || v_filled != filled || (v_terms != terms && !OPEN(R1) && !OPEN(R2)))
#endif

inline learn() {                        /* without reports, a look-up is how we hear of fills and of the end */
#ifndef REPORTS
    if :: f_filled > filled -> filled = f_filled; fresh = false :: else -> skip fi;
    if :: ended == nothing && f_ended != nothing -> ended = f_ended; fresh = false :: else -> skip fi
#else
    skip
#endif
}

inline not_applied() {                  /* the look-up of a replace showed what it was made from */
    if
    :: f_over -> status[r] = moot
    :: !f_over && turned_down[r] -> status[r] = refused
    :: !f_over && !turned_down[r] && MAY_RESEND -> status[r] = pending; in_doubt[r] = STAYS_IN_DOUBT; repeated[r] = true
    :: !f_over && !turned_down[r] && !MAY_RESEND -> parked[r] = true
    fi
}

#ifdef AMENDED_FIRST                    /* broken: what a filled order shows may be the old quantity */
#define REACHED (f_terms == AMENDED(asked[r], f_filled))
#else
#define REACHED (f_terms != before[r] && f_terms == AMENDED(asked[r], f_filled))
#endif
#ifdef END_IS_ENOUGH                    /* broken: a look-up that shows the order's end is not asked for the terms */
#define ENDED_BEFORE (f_ended != nothing)
#else
#define ENDED_BEFORE false
#endif

#define blank() r = 0; n = 0; f_terms = 0; f_filled = 0; f_ended = nothing; f_over = false; fresh = false

proctype look_up() {
    byte r; byte n; byte f_terms; byte f_filled; mtype f_ended; bool f_over;
end:
    do
    :: atomic {
            if
            :: ASKED(R1) -> r = R1
            :: ASKED(R2) -> r = R2
            :: ASKED(C) -> r = C
            :: UNKNOWN_CHANGE -> r = 3
            fi;
            f_terms = v_terms; f_filled = v_filled; f_ended = v_ended; f_over = V_OVER;
            if :: r < 3 -> n = attempt[r] :: else -> fresh = true fi;
            printf("MSC: the venue is asked (R%d): %e, quantity %d, price %d, filled %d\n",
                   r + 1, f_ended, QUANTITY(f_terms), PRICE(f_terms), f_filled)
        };
        if
        :: atomic { r == 3 ->
                    if
                    :: fresh ->
                        learn();
                        if :: !OPEN(R1) && !OPEN(R2) -> terms = f_terms :: else -> skip fi
                    :: else -> skip
                    fi;
                    printf("MSC: the reconciliation is written\n"); check(); blank() }
        :: atomic { r < 3 ->
                    if
                    :: (status[r] == unconfirmed || status[r] == sent) && attempt[r] == n -> fresh = false;
                        if
                        :: r == C && f_ended == canceled -> accept(C); learn()
                        :: r == C && f_ended != canceled && f_over -> status[C] = moot; learn()
                        :: r == C && !f_over && turned_down[C] -> status[C] = refused
                        :: r == C && !f_over && !turned_down[C] -> status[C] = unconfirmed
                        :: r != C && ENDED_BEFORE -> status[r] = moot; learn()
                        :: r != C && !ENDED_BEFORE && REACHED -> accept(r); learn()
                        :: r != C && !ENDED_BEFORE && !REACHED && f_terms == before[r] -> not_applied(); learn()
                        :: r != C && !ENDED_BEFORE && !REACHED && f_terms != before[r] && !f_over && MAY_RESEND_OVER_OTHERS ->
                            status[r] = pending; repeated[r] = true
                        :: r != C && !ENDED_BEFORE && !REACHED && f_terms != before[r] && (f_over || !MAY_RESEND_OVER_OTHERS) ->
                            status[r] = unconfirmed; parked[r] = true; learn()
                        fi;
                        printf("MSC: the look-up is written: R%d is %e\n", r + 1, status[r])
                    :: else -> skip
                    fi;
                    check(); blank() }
        fi
    od
}

/* ---- the session: the venue's reports, folded in their sequence (orders.facts.fold) ---- */

#ifdef REPORTS
inline close(r) {                       /* the order has ended, and no report before this one said that r was applied */
    if :: OPEN(r) -> status[r] = moot; fresh = false :: else -> skip fi
}

inline fold(what) {
    if
    :: what < EXPIRED -> filled = filled + what
    :: what == EXPIRED -> ended = expired; close(R1); close(R2); close(C)
    :: what == RESTATED -> terms = TERMS(4, PRICE(terms))
    :: what == CANCELED -> accept(C); close(R1); close(R2)
    :: what >= NOT_DONE(R1) && what <= NOT_DONE(C) ->
        if
        :: OPEN(what - NOT_DONE(R1)) && !DOUBTED_REPORT(what - NOT_DONE(R1)) -> status[what - NOT_DONE(R1)] = refused
        :: else -> skip
        fi
    :: what >= REPLACED(R1, 0) && what < REPLACED(R2, 0) -> status[R1] = accepted; replace(R1, what - REPLACED(R1, 0))
    :: what >= REPLACED(R2, 0) -> status[R2] = accepted; replace(R2, what - REPLACED(R2, 0))
    fi;
    fresh = false
}

proctype session() {
end:
    do
    :: atomic { read < reported -> fold(log[read]); read++;
                printf("MSC: report %d is folded; R1 is %e, R2 is %e, C is %e\n", read, status[R1], status[R2], status[C]);
                check() }
    od
}
#endif

init {
    atomic { run client(); run engine(); run workers(); run network(); run clock(); run market(); run look_up();
#ifdef REPORTS
             run session();
#endif
    };
    timeout -> atomic {                 /* nothing can move any more */
        printf("MSC: all is quiet: R1 %e, R2 %e, C %e; we believe %e, quantity %d, price %d, filled %d; it is %e, %d, %d, %d\n",
               status[R1], status[R2], status[C], ended, QUANTITY(terms), PRICE(terms), filled,
               v_ended, QUANTITY(v_terms), PRICE(v_terms), v_filled);
        assert(!CHECK(2) || AT_REST)
    }
}
