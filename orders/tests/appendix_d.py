"""The order state change matrices of FIX 4.4, volume 4, appendix D, as a table of what a venue says and we show.

Each line is a message and, after it, the status, the cumulative quantity (FIX 14) and the leaves quantity (151); in
some scenarios also the average price (6); and where a request of ours is decided, its letter and its status. Where that
is `not taken`, our service takes no such request, because the order is filled. Every order begins with a quantity of
10000, being sent. `ask` is a request of ours; letters after X name requests and all others executions, as in the
appendix.

The word behind a scenario's name says where its values are from:

    read       a public rendering of the matrix was read and is followed
    text       the appendix' introduction says so in words; the quantities are ours
    tests      the statuses are those that the tests of the FIX library asyncfix expect; the quantities are ours
    recalled   from memory: no rendering of this matrix was found
    ours       not in the appendix

One deviation: where an execution crosses a request of ours, a broker reports "partially filled", because it does not
know of the request yet. We do, and show the request as pending since it was made. Left out are matrices about requests
for an order's status, orders sent twice, stock splits and lists, and a second request while one is open (D.2.b, D.2.c):
we send none.
"""

import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

from exchanges.venue import ExecutionReport, ReportKind

QUANTITY = 10_000
DEFAULT_PRICE = Decimal(50)

TABLE = """
A.1.a filled order (tests)
    acknowledged                       placed               0 10000
    fill B 2000                        partially_filled  2000  8000
    fill C 1000                        partially_filled  3000  7000
    fill E 7000                        filled           10000     0

A.1.a rejected (read)
    rejected                           rejected             0     0

A.1.b part-filled day order, done for day (read)
    acknowledged                       placed               0 10000
    fill B 2000                        partially_filled  2000  8000
    fill C 1000                        partially_filled  3000  7000
    done for day                       done_for_day      3000     0

B.1.a cancel of a zero-filled order (read)
    acknowledged                       placed               0 10000
    ask cancel Y                       pending_cancel       0 10000
    cancel pending Y                   pending_cancel       0 10000
    canceled                           canceled             0     0       Y accepted

B.1.a refused (read)
    acknowledged                       placed               0 10000
    ask cancel Y                       pending_cancel       0 10000
    cancel pending Y                   pending_cancel       0 10000
    cancel refused Y                   placed               0 10000       Y refused

B.1.b cancel of a part-filled order, executions meanwhile (read)
    acknowledged                       placed               0 10000
    fill B 2000                        partially_filled  2000  8000
    ask cancel Y                       pending_cancel    2000  8000
    fill C 3000                        pending_cancel    5000  5000
    cancel pending Y                   pending_cancel    5000  5000
    fill E 1000                        pending_cancel    6000  4000
    canceled                           canceled          6000     0       Y accepted

B.1.b refused (read)
    acknowledged                       placed               0 10000
    fill B 2000                        partially_filled  2000  8000
    ask cancel Y                       pending_cancel    2000  8000
    fill C 3000                        pending_cancel    5000  5000
    cancel refused Y                   partially_filled  5000  5000       Y refused

B.1.c filled before the cancel can be accepted (read)
    acknowledged                       placed               0 10000
    fill B 2000                        partially_filled  2000  8000
    ask cancel Y                       pending_cancel    2000  8000
    fill C 3000                        pending_cancel    5000  5000
    cancel pending Y                   pending_cancel    5000  5000
    fill E 5000                        pending_cancel   10000     0
    cancel refused Y                   filled           10000     0       Y refused

B.1.d cancel of an order that is not acknowledged yet (recalled)
    ask cancel Y                       submitting           0 10000
    cancel pending Y                   submitting           0 10000
    canceled                           canceled             0     0       Y accepted

B.1.e cancel and acknowledgement cross (read)
    ask cancel Y                       submitting           0 10000
    acknowledged                       pending_cancel       0 10000
    cancel pending Y                   pending_cancel       0 10000
    canceled                           canceled             0     0       Y accepted

C.1.a replace of a zero-filled order by more (tests)
    acknowledged                       placed               0 10000
    ask replace Y                      pending_replace      0 10000
    replace pending Y                  pending_replace      0 10000
    replaced Y 11000                   placed               0 11000       Y accepted
    fill B 1000                        partially_filled  1000 10000
    fill C 2000                        partially_filled  3000  8000

C.1.b replace of a part-filled order by more, execution meanwhile (read)
    acknowledged                       placed               0 10000
    fill B 1000                        partially_filled  1000  9000
    ask replace Y                      pending_replace   1000  9000
    replace pending Y                  pending_replace   1000  9000
    fill C 100                         pending_replace   1100  8900
    replaced Y 12000                   partially_filled  1100 10900       Y accepted
    fill E 10900                       filled           12000     0

C.1.c replace of a filled order by more (tests)
    acknowledged                       placed               0 10000
    fill B 10000                       filled           10000     0
    ask replace Y                      pending_replace  10000     0       Y not taken
    replace pending Y                  pending_replace  10000     0
    replaced Y 12000                   partially_filled 10000  2000
    fill C 2000                        filled           12000     0

C.1.c refused (tests)
    acknowledged                       placed               0 10000
    fill B 10000                       filled           10000     0
    ask replace Y                      pending_replace  10000     0       Y not taken
    replace refused Y                  filled           10000     0

C.2.a replace of the price, refused because the order is filled (read)
    acknowledged                       placed               0 10000
    fill B 1000                        partially_filled  1000  9000
    ask replace Y                      pending_replace   1000  9000
    fill C 9000                        pending_replace  10000     0
    replace refused Y                  filled           10000     0       Y refused

C.3.a replace by less, but more than is executed (read)
    acknowledged                       placed               0 10000
    fill B 1000                        partially_filled  1000  9000
    ask replace Y                      pending_replace   1000  9000
    fill C 500                         pending_replace   1500  8500
    replace pending Y                  pending_replace   1500  8500
    fill E 100                         pending_replace   1600  8400
    replaced Y 8000                    partially_filled  1600  6400       Y accepted
    fill F 6400                        filled            8000     0

C.3.b replace by as much as is executed (read)
    acknowledged                       placed               0 10000
    ask replace Y                      pending_replace      0 10000
    fill B 7000                        pending_replace   7000  3000
    replaced Y 7000                    filled            7000     0       Y accepted

C.3.c replace by less than is executed: amended to that (tests)
    acknowledged                       placed               0 10000
    ask replace Y                      pending_replace      0 10000
    fill B 8000                        pending_replace   8000  2000
    replaced Y 7000                    filled            8000     0       Y accepted

D.1.a one replace accepted, then another (read)
    acknowledged                       placed               0 10000
    fill B 1000                        partially_filled  1000  9000
    ask replace Y                      pending_replace   1000  9000
    replace pending Y                  pending_replace   1000  9000
    fill C 500                         pending_replace   1500  8500
    replaced Y 8000                    partially_filled  1500  6500       Y accepted
    fill E 2000                        partially_filled  3500  4500
    ask replace Z                      pending_replace   3500  4500
    replace pending Z                  pending_replace   3500  4500
    fill F 500                         pending_replace   4000  4000
    replaced Z 6000                    partially_filled  4000  2000       Z accepted
    fill G 2000                        filled            6000     0

D.1.b one replace refused before it is pending, then another accepted (read)
    acknowledged                       placed               0 10000
    fill B 1000                        partially_filled  1000  9000
    ask replace Y                      pending_replace   1000  9000
    replace refused Y                  partially_filled  1000  9000       Y refused
    fill C 500                         partially_filled  1500  8500
    fill E 2000                        partially_filled  3500  6500
    ask replace Z                      pending_replace   3500  6500
    replace pending Z                  pending_replace   3500  6500
    replaced Z 6000                    partially_filled  3500  2500       Z accepted
    fill F 1500                        partially_filled  5000  1000

D.1.c one replace refused after it is pending, then another accepted (read)
    acknowledged                       placed               0 10000
    fill B 1000                        partially_filled  1000  9000
    ask replace Y                      pending_replace   1000  9000
    replace pending Y                  pending_replace   1000  9000
    fill C 500                         pending_replace   1500  8500
    replace refused Y                  partially_filled  1500  8500       Y refused
    fill E 2000                        partially_filled  3500  6500
    ask replace Z                      pending_replace   3500  6500
    replace pending Z                  pending_replace   3500  6500
    replaced Z 6000                    partially_filled  3500  2500       Z accepted
    fill F 1500                        partially_filled  5000  1000

D.2.a two replaces, processed one after the other (recalled)
    acknowledged                       placed               0 10000
    fill B 1000                        partially_filled  1000  9000
    ask replace Y                      pending_replace   1000  9000
    replace pending Y                  pending_replace   1000  9000
    replaced Y 8000                    partially_filled  1000  7000       Y accepted
    ask replace Z                      pending_replace   1000  7000
    replace pending Z                  pending_replace   1000  7000
    replaced Z 7000                    partially_filled  1000  6000       Z accepted
    fill C 6000                        filled            7000     0

D.2.d the refusal of another replace closes only that one (read)
    acknowledged                       placed               0 10000
    fill B 1000                        partially_filled  1000  9000
    ask replace Y                      pending_replace   1000  9000
    replace pending Y                  pending_replace   1000  9000
    replace refused Z                  pending_replace   1000  9000
    replaced Y 8000                    partially_filled  1000  7000       Y accepted
    fill C 2000                        partially_filled  3000  5000

E.1.b canceled without being asked (read)
    acknowledged                       placed               0 10000
    fill B 1000                        partially_filled  1000  9000
    canceled                           canceled          1000     0

E.1.c changed without being asked (read)
    acknowledged                       placed               0 10000
    restated 11000                     placed               0 11000
    fill B 1000                        partially_filled  1000 10000
    restated 12000                     partially_filled  1000 11000

E.1.d reduced without being asked (read)
    acknowledged                       placed               0 10000
    restated 9000                      placed               0  9000
    fill B 9000                        filled            9000     0

F.1.b acknowledged again (read)
    acknowledged                       placed               0 10000
    acknowledged                       placed               0 10000

H.1.a gtc, renewed on the next day (read)
    acknowledged                       placed               0 10000
    fill B 2000                        partially_filled  2000  8000
    done for day                       done_for_day      2000  8000
    restated 10000                     partially_filled  2000  8000
    fill C 1000                        partially_filled  3000  7000

H.1.c gtc, canceled on the next day (read)
    acknowledged                       placed               0 10000
    fill B 2000                        partially_filled  2000  8000
    done for day                       done_for_day      2000  8000
    restated 10000                     partially_filled  2000  8000
    ask cancel Y                       pending_cancel    2000  8000
    cancel pending Y                   pending_cancel    2000  8000
    canceled                           canceled          2000     0       Y accepted

H.1.d gtc, replaced by more on the next day (read)
    acknowledged                       placed               0 10000
    fill B 2000                        partially_filled  2000  8000
    done for day                       done_for_day      2000  8000
    restated 10000                     partially_filled  2000  8000
    ask replace Y                      pending_replace   2000  8000
    replace pending Y                  pending_replace   2000  8000
    fill C 1000                        pending_replace   3000  7000
    replaced Y 15000                   partially_filled  3000 12000       Y accepted

I.1.a fill or kill that cannot be filled: a kill is a cancel (text)
    acknowledged                       placed               0 10000
    canceled                           canceled             0     0

I.1.b immediate or cancel that is filled in part (text)
    acknowledged                       placed               0 10000
    fill B 1000                        partially_filled  1000  9000
    canceled                           canceled          1000     0

J.1.a executions taken back and corrected (read)
    acknowledged                       placed               0 10000
    fill C 1000 @ 100                  partially_filled  1000  9000  100
    fill D 9000 @ 110                  filled           10000     0  109
    bust E of C                        partially_filled  9000  1000  110
    correct F of D to 9000 @ 100       partially_filled  9000  1000  100
    fill G 1000 @ 120                  filled           10000     0  102
    correct H of F to 9000 @ 120       filled           10000     0  120
    ask replace Y                      pending_replace  10000     0  120  Y not taken
    replace pending Y                  pending_replace  10000     0  120
    replaced Y 12000                   partially_filled 10000  2000  120
    correct K of H to 9500 @ 120       partially_filled 10500  1500  120

J.1.b canceled, then an execution taken back and a new one (read)
    acknowledged                       placed               0 10000
    fill B 5000 @ 50                   partially_filled  5000  5000   50
    ask cancel Y                       pending_cancel    5000  5000
    cancel pending Y                   pending_cancel    5000  5000
    canceled                           canceled          5000     0       Y accepted
    bust E of B                        canceled             0     0
    fill F 4000 @ 51                   canceled          4000     0   51

J.1.c gtc, the executions of two days corrected (read)
    acknowledged                       placed               0 10000
    fill B 2000                        partially_filled  2000  8000
    done for day                       done_for_day      2000  8000
    restated 10000                     partially_filled  2000  8000
    fill E 1000                        partially_filled  3000  7000
    correct F of B to 1500 @ 50        partially_filled  2500  7500
    correct G of E to 500 @ 50         partially_filled  2000  8000

J.1.d part-filled, done for day, then corrected and taken back (recalled)
    acknowledged                       placed               0 10000
    fill B 5000                        partially_filled  5000  5000
    done for day                       done_for_day      5000     0
    correct E of B to 4000 @ 50        done_for_day      4000     0
    bust F of E                        done_for_day         0     0

K.1.b canceled by a trading halt (recalled)
    acknowledged                       placed               0 10000
    canceled                           canceled             0     0

canceled by the floor after a refusal to cancel (ours)
    acknowledged                       placed               0 10000
    ask cancel Y                       pending_cancel       0 10000
    cancel refused Y                   placed               0 10000       Y refused
    canceled                           canceled             0     0

executed after it was canceled (ours)
    acknowledged                       placed               0 10000
    ask cancel Y                       pending_cancel       0 10000
    canceled                           canceled             0     0       Y accepted
    fill B 400                         canceled           400     0

executed after it expired (ours)
    acknowledged                       placed               0 10000
    expired                            expired              0     0
    fill B 400                         expired            400     0

filled after it was canceled (ours)
    acknowledged                       placed               0 10000
    canceled                           canceled             0     0
    fill B 10000                       filled           10000     0

executed before it is acknowledged (ours)
    fill B 400                         partially_filled   400  9600
    acknowledged                       partially_filled   400  9600

executed although it was rejected (ours)
    rejected                           rejected             0     0
    fill B 400                         partially_filled   400  9600
    bust C of B                        rejected             0     0

one execution reported twice (ours)
    acknowledged                       placed               0 10000
    fill B 400                         partially_filled   400  9600
    fill B 400                         partially_filled   400  9600

executed above its quantity (ours)
    acknowledged                       placed               0 10000
    fill B 10000                       filled           10000     0
    fill C 100                         filled           10100     0

cancel asked for while a replace is open (ours)
    acknowledged                       placed               0 10000
    ask replace Y                      pending_replace      0 10000
    ask cancel Z                       pending_cancel       0 10000
    replaced Y 8000                    pending_cancel       0  8000       Y accepted
    canceled                           canceled             0     0       Z accepted

a correction of a correction overtakes it (ours)
    acknowledged                       placed               0 10000
    fill B 1000 @ 50                   partially_filled  1000  9000   50
    correct E of C to 3000 @ 52        partially_filled  4000  6000
    correct C of B to 2000 @ 51        partially_filled  3000  7000   52

taken back before it is reported (ours)
    acknowledged                       placed               0 10000
    bust C of B                        placed               0 10000
    fill B 400                         placed               0 10000

done for day after it was canceled (ours)
    acknowledged                       placed               0 10000
    canceled                           canceled             0     0
    done for day                       canceled             0     0
"""


@dataclass(frozen=True)
class Step:
    message: str
    status: str
    cumulative: int
    leaves: int
    average_price: Decimal | None
    decided: tuple[str, str] | None = field(default=None, compare=False)
    """The letter of a request, and the status in which this message leaves it."""


@dataclass(frozen=True)
class Scenario:
    name: str
    source: str
    steps: tuple[Step, ...]

    @property
    def time_in_force(self) -> str:
        return "gtc" if " gtc" in self.name else "day"


def _read(block: str) -> Scenario:
    head, *lines = block.strip().splitlines()
    name, source = re.fullmatch(r"(.+) \((\w+)\)", head).groups()  # type: ignore[union-attr]
    steps = []
    for line in lines:
        message, status, cumulative, leaves, price, letter, became = re.fullmatch(  # type: ignore[union-attr]
            r"    (.{34}) (\w+) +(\d+) +(\d+)(?: +(\d+))?(?: +([X-Z]) ([a-z ]+))?", line
        ).groups()
        average_price, decided = Decimal(price) if price else None, (letter, became) if letter else None
        steps.append(Step(message.strip(), status, int(cumulative), int(leaves), average_price, decided))
    return Scenario(name, source, tuple(steps))


SCENARIOS = [_read(block) for block in TABLE.strip().split("\n\n")]

_MESSAGES = {
    ReportKind.ACKNOWLEDGED: "acknowledged",
    ReportKind.REJECTED: "rejected",
    ReportKind.EXECUTED: r"fill (?P<execution>\w+) (?P<quantity>\d+)(?: @ (?P<price>\d+))?",
    ReportKind.BUSTED: r"bust (?P<execution>\w+) of (?P<refers_to>\w+)",
    ReportKind.CORRECTED: r"correct (?P<execution>\w+) of (?P<refers_to>\w+) to (?P<quantity>\d+) @ (?P<price>\d+)",
    ReportKind.CANCELED: "canceled",
    ReportKind.EXPIRED: "expired",
    ReportKind.DONE_FOR_DAY: "done for day",
    ReportKind.RESTATED: r"restated (?P<quantity>\d+)",
    ReportKind.CANCEL_PENDING: r"cancel pending (?P<request>\w+)",
    ReportKind.REPLACE_PENDING: r"replace pending (?P<request>\w+)",
    ReportKind.REPLACED: r"replaced (?P<request>\w+) (?P<quantity>\d+)",
    ReportKind.CANCEL_REFUSED: r"cancel refused (?P<request>\w+)",
    ReportKind.REPLACE_REFUSED: r"replace refused (?P<request>\w+)",
}


def asked(message: str, order_id: str) -> tuple[str, str] | None:
    """What of our own a message asks for, "cancel" or "replace", and the request's id; None if it is a report."""
    found = re.fullmatch(r"ask (cancel|replace) (\w)", message)
    return (found[1], request_id(order_id, found[2])) if found else None


def report(message: str, order_id: str, sequence: int) -> ExecutionReport:
    """The report that a message of the table stands for. Execution ids are made unique by the order's id."""
    kind, given = next(
        (kind, found.groupdict()) for kind, text in _MESSAGES.items() if (found := re.fullmatch(text, message))
    )
    more: dict[str, Any] = {}
    if "request" in given:
        more = {"client_order_id": request_id(order_id, given["request"]), "original_client_order_id": order_id}
    if kind in (ReportKind.EXECUTED, ReportKind.CORRECTED):
        more["price"] = Decimal(given["price"]) if given["price"] else DEFAULT_PRICE
    for column, name in (("execution_id", "execution"), ("refers_to", "refers_to")):
        more[column] = f"{order_id}/{given[name]}" if name in given else ""
    return ExecutionReport(
        sequence=sequence,
        kind=kind,
        venue_order_id=f"V-{order_id[-12:]}",
        quantity=int(given.get("quantity") or 0),
        **{"client_order_id": order_id, **more},
    )


def request_id(order_id: str, letter: str) -> str:
    """The same for the same letter of the same order."""
    return str(UUID(int=UUID(order_id).int ^ ord(letter)))
