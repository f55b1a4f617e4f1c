"""What the laboratory judges of an order after its placement: executions, cancels, replacements, streams, webhooks."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from benchmarks.faults.invariants import violations
from benchmarks.faults.records import (
    Asked,
    Evidence,
    Execution,
    Heard,
    Listener,
    Position,
    Request,
    Row,
    Step,
    Terms,
    Told,
    VenueEntry,
    VenueReport,
)

ISIN = "US0378331005"
CONTENT = (ISIN, "buy", "limit", 100)
BEFORE, AFTER = Terms(100, Decimal("10.50")), Terms(120, Decimal("10.50"))

# Alice buys 100. The exchange fills 60 at 10.50, and 20 at 10.25 which it busts. She has the quantity replaced by 120,
# and 30 of the 60 are corrected away; in the end the rest is canceled: 30 filled, for 315.
FILL = Execution("S-e2", "executed", "", "o-1", "", ISIN, "buy", 60, Decimal("10.50"))
SECOND = Execution("S-e3", "executed", "", "o-1", "", ISIN, "buy", 20, Decimal("10.25"))
BUST = Execution("S-e4", "busted", "S-e3", "o-1", "", ISIN, "buy", 0, None)
CORRECTION = Execution("S-e6", "corrected", "S-e2", "o-1", "", ISIN, "buy", 30, Decimal("10.50"))
REPORTS = [
    VenueReport(1, "new", "o-1", "S-1", "new", BEFORE, 0, 100),
    VenueReport(2, "fill", "o-1", "S-1", "partially_filled", BEFORE, 60, 40, execution=FILL),
    VenueReport(3, "fill", "o-1", "S-1", "partially_filled", BEFORE, 80, 20, execution=SECOND),
    VenueReport(4, "bust", "o-1", "S-1", "partially_filled", BEFORE, 60, 40, execution=BUST),
    VenueReport(5, "replaced", "o-1", "S-1", "partially_filled", AFTER, 60, 60, "r-1"),
    VenueReport(6, "correction", "o-1", "S-1", "partially_filled", AFTER, 30, 90, execution=CORRECTION),
    VenueReport(7, "canceled", "o-1", "S-1", "canceled", AFTER, 30, 0, "r-2"),
]
HISTORY = [
    Step(1, "accepted", "", "pending", 0, 2.0, ""),
    Step(2, "claimed", "pending", "submitting", 1, 2.1, ""),
    Step(3, "acknowledged", "submitting", "placed", 1, 2.2, ""),
    Step(4, "executed", "placed", "partially_filled", 1, 2.3, ""),
    Step(5, "canceled_at_venue", "partially_filled", "canceled", 1, 2.4, ""),
]
ROW = Row("o-1", "alice", "c-1", CONTENT, "canceled", False, 1, 5, "S-1", AFTER, 30, Decimal("315"))
STORED = [execution._replace(owner="alice") for execution in (FILL, SECOND, BUST, CORRECTION)]
HELD = Position("alice", ISIN, Decimal(30), Decimal("315"), Decimal(0), Decimal(0))
REPLACED, CANCELED = Request("r-1", "o-1", "replace", "accepted"), Request("r-2", "o-1", "cancel", "accepted")
WHOLE = [Heard("o-1", number) for number in (1, 2, 3, 4, 5)]
CLEAN = Evidence(
    told=[
        Told(
            client_order_id="c-1",
            owner="alice",
            content=CONTENT,
            first_sent_at=1.0,
            accepted_at=2.0,
            order_ids={"o-1"},
        )
    ],
    rows=[ROW],
    histories={"o-1": HISTORY},
    ledger=[VenueEntry("o-1", "S-1", "working", "2026-01-31T09:30:00+00:00")],
    foreign_reads=[],
    executions=STORED,
    positions=[HELD],
    requests=[REPLACED, CANCELED],
    reports=REPORTS,
    streams=[Listener(name="alice-1", owner="alice", heard=WHOLE), Listener(name="bob-1", owner="bob")],
    webhooks=[Listener(name="alice-2", owner="alice", heard=WHOLE)],
)


def _stored(number: int, **changes: Any) -> dict[str, Any]:
    changed = [*STORED]
    changed[number] = changed[number]._replace(**changes)
    return {"executions": changed}


def _heard(name: str, *numbers: int) -> dict[str, Any]:
    return {name: [Listener(name="alice-1", owner="alice", heard=[Heard("o-1", number) for number in numbers])]}


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("execution lost", {"executions": STORED[:3]}),
    ("execution lost", {"executions": [*STORED[:2], STORED[3]]}),
    ("execution doubled", {"executions": [*STORED, STORED[0]]}),
    ("execution doubled", {"executions": [*STORED, STORED[0]._replace(execution_id="S-e9")]}),
    ("execution misattributed", _stored(0, order_id="o-2")),
    ("execution misattributed", _stored(0, owner="bob")),
    ("execution misattributed", _stored(0, quantity=61)),
    ("execution misattributed", _stored(0, price=Decimal("10.51"))),
    ("execution misattributed", _stored(0, side="sell")),
    ("execution misattributed", _stored(2, refers_to="S-e2")),
    ("filled is not its executions", {"rows": [ROW._replace(filled=60)]}),
    ("filled is not its executions", {"rows": [ROW._replace(value=Decimal("630"))]}),
    ("position is not its executions", {"positions": []}),
    ("position is not its executions", {"positions": [HELD._replace(bought_value=Decimal("314.99"))]}),
    ("position is not its executions", {"positions": [HELD, HELD._replace(owner="bob")]}),
    ("state believed otherwise", {"rows": [ROW._replace(status="expired")]}),
    ("state believed otherwise", {"rows": [ROW._replace(status="filled")]}),
    ("state believed otherwise", {"rows": [ROW._replace(status="unconfirmed", parked=True, venue_order_id="")]}),
    ("state believed otherwise", {"rows": [ROW._replace(venue_order_id="")]}),
    ("state believed otherwise", {"rows": [ROW._replace(filled=60)]}),
    ("canceled but live", {"reports": REPORTS[:-1]}),
    ("terms believed otherwise", {"rows": [ROW._replace(terms=BEFORE)]}),
    ("terms believed otherwise", {"rows": [ROW._replace(terms=AFTER._replace(limit_price=Decimal("10.51")))]}),
    ("terms believed otherwise", {"rows": [ROW._replace(terms=AFTER._replace(expires_at=1.0))]}),
    ("request never answered", {"requests": [REPLACED, CANCELED._replace(status="sent")]}),
    ("request never answered", {"requests": [REPLACED._replace(status="waiting"), CANCELED]}),
    ("request lost", {"asked": [Asked("o-1", "replace", 202)], "requests": [CANCELED]}),
    ("cancel believed otherwise", {"requests": [REPLACED, CANCELED._replace(status="moot")]}),
    ("cancel believed otherwise", {"requests": [REPLACED, CANCELED], "reports": REPORTS[:-1]}),
    ("cancel believed otherwise", {"requests": [REPLACED]}),
    ("replace believed otherwise", {"requests": [REPLACED._replace(status="refused"), CANCELED]}),
    ("replace believed otherwise", {"requests": [REPLACED, REPLACED._replace(id="r-3"), CANCELED]}),
    ("replace believed otherwise", {"requests": [CANCELED]}),
    ("stream event missed", _heard("streams", 1, 2, 3, 5)),
    ("stream event missed", {"streams": [Listener(name="alice-1", owner="alice")]}),
    ("stream event doubled", _heard("streams", 1, 2, 3, 3, 4, 5)),
    ("stream event out of order", _heard("streams", 1, 2, 4, 3, 5)),
    ("webhook never delivered", _heard("webhooks", 1, 2, 3, 4)),
]


def test_nothing_is_wrong_with_clean_evidence() -> None:
    assert violations(CLEAN) == []


@pytest.mark.parametrize(("what", "changes"), WRONG)
def test_a_violation_is_found(what: str, changes: dict[str, Any]) -> None:
    assert what in {violation.what for violation in violations(replace(CLEAN, **changes))}


@pytest.mark.parametrize(
    "changes",
    [
        {"asked": [Asked("o-1", "replace", 202), Asked("o-1", "cancel", 202), Asked("o-2", "cancel", 409)]},
        _heard("webhooks", 2, 1, 3, 3, 4, 5),
        # The exchange canceled the order by itself: whoever asked for that has what was asked for.
        {"reports": [*REPORTS[:-1], REPORTS[-1]._replace(request_id="")]},
        {"requests": [REPLACED, CANCELED, Request("r-3", "o-1", "replace", "superseded")]},
        {"requests": [REPLACED, CANCELED, Request("r-4", "o-1", "cancel", "accepted")]},
    ],
)
def test_what_is_no_violation_is_not_called_one(changes: dict[str, Any]) -> None:
    assert violations(replace(CLEAN, **changes)) == []


def test_an_order_with_an_open_request_is_judged_by_the_request_alone() -> None:
    row = ROW._replace(status="pending_cancel", version=4)
    history = [*HISTORY[:3], Step(4, "cancel_asked", "placed", "pending_cancel", 1, 2.3, "")]
    open_cancel = CANCELED._replace(status="unconfirmed")
    evidence = replace(CLEAN, rows=[row], histories={"o-1": history}, requests=[REPLACED, open_cancel], streams=[])
    evidence = replace(evidence, webhooks=[], reports=[*REPORTS[:-1]])
    assert [violation.what for violation in violations(evidence)] == ["request never answered"]


def test_a_cancel_of_an_order_left_to_an_operator_waits_for_the_operator() -> None:
    history = [*HISTORY[:2], Step(3, "outcome_unknown", "submitting", "unconfirmed", 1, 2.2, "")]
    row = Row("o-1", "alice", "c-1", CONTENT, "unconfirmed", True, 1, 3, "", BEFORE)
    waiting = [CANCELED._replace(status="waiting")]
    evidence = Evidence(
        told=CLEAN.told, rows=[row], histories={"o-1": history}, ledger=[], foreign_reads=[], requests=waiting
    )
    assert violations(evidence) == []
    found = violations(replace(evidence, rows=[row._replace(parked=False)]))
    assert [violation.what for violation in found] == ["never finished", "request never answered"]


def test_an_order_canceled_before_it_was_sent_has_its_cancel_accepted() -> None:
    history = [HISTORY[0], Step(2, "cancel_requested", "pending", "canceled", 0, 2.1, "")]
    row = Row("o-1", "alice", "c-1", CONTENT, "canceled", False, 0, 2, "", BEFORE)
    evidence = Evidence(
        told=CLEAN.told,
        rows=[row],
        histories={"o-1": history},
        ledger=[],
        foreign_reads=[],
        requests=[CANCELED],
    )
    assert violations(evidence) == []
