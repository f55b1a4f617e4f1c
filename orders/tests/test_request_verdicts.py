"""What an attempt or a look-up means for a request, by the class of the venue. Worked out by hand."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from exchanges.venue import (
    Capabilities,
    Done,
    NotSent,
    NotSupported,
    OutcomeUnknown,
    Report,
    ReportStatus,
    RequestRefused,
    ResendSafety,
    Taken,
    VenueError,
    VenueTrouble,
)
from orders.models import RequestStatus, new_order_id
from orders.request_verdicts import Said, Unknown, after_attempt, after_look_up
from orders.requests import ClaimedRequest, Move, NewTerms, RequestLookUp
from orders.tests.scripted_venue import ALL

A, B = ResendSafety.REFUSES_DUPLICATES, ResendSafety.REFUSES_RECENT_DUPLICATES
C, D = ResendSafety.REFUSES_STALE_REQUESTS, ResendSafety.NOTHING
OLD = NewTerms(100, Decimal("10.25"), None, "day", None)
NEW = NewTerms(80, Decimal(11), None, "day", None)
SETTLE, LEASE_LEFT = 10.0, 25.0


def venue(safety: ResendSafety = A, **given: Any) -> Capabilities:
    return Capabilities(
        resend_safety=safety,
        deadline_seconds=5.0,
        settle_seconds=SETTLE,
        finds=True,
        order_types=ALL,
        times_in_force=ALL,
        duplicate_window_seconds=200.0 if safety is B else None,
        cancels=True,
        replaces=True,
        **given,
    )


def claimed(kind: str, **given: Any) -> ClaimedRequest:
    return ClaimedRequest(
        id=new_order_id(),
        order_id=new_order_id(),
        venue_id="XSCR",
        kind=kind,
        original_id=new_order_id(),
        venue_order_id="V1",
        attempt=1,
        failures=0,
        in_doubt=False,
        lease_expires_at=datetime(2030, 1, 1, tzinfo=UTC),
        filled=0,
        replacing=False,
        terms=NEW if kind == "replace" else None,
    )._replace(**given)


def looked_up(kind: str, **given: Any) -> RequestLookUp:
    return RequestLookUp(
        id=new_order_id(),
        order_id=new_order_id(),
        venue_order_id="V1",
        kind=kind,
        attempt=1,
        status="unconfirmed",
        settled=True,
        age=20.0,
        before=OLD,
        code="",
        terms=NEW if kind == "replace" else None,
        filled=0,
        canceling=kind == "cancel",
        replacing=False,
    )._replace(**given)


def tried(kind: str, answer: Done | Taken | VenueError, safety: ResendSafety = A, **given: Any) -> str | Move:
    """The kind of report that is folded, or how the request goes on."""
    verdict = after_attempt(claimed(kind, **given), answer, venue(safety), lease_left=LEASE_LEFT)
    return str(verdict.report.kind) if isinstance(verdict, Said) else verdict


def shown(status: ReportStatus, terms: NewTerms = OLD, **given: Any) -> Report:
    terms_shown: dict[str, Any] = {
        "quantity": terms.quantity,
        "limit_price": terms.limit_price,
        "time_in_force": terms.time_in_force,
        "cumulative_quantity": 0,
    }
    return Report(client_order_id="x", status=status, venue_order_id="V1", **terms_shown | given)


def found(
    kind: str, answer: Report | VenueError | None, capabilities: Capabilities | None = None, **given: Any
) -> str | None:
    """The kind of report that is folded, `again`, `unknown order`, or None to ask again later."""
    verdict = after_look_up(looked_up(kind, **given), answer, capabilities or venue())
    match verdict:
        case Said(report):
            return str(report.kind)
        case Move(status=RequestStatus.PENDING):
            return "again"
        case Unknown():
            return "unknown order"
    return None


DONE, UNKNOWN, REFUSED = Done(venue_order_id="V1"), OutcomeUnknown("timeout"), RequestRefused("too_late", by_end=True)


# ---- An attempt ----


@pytest.mark.parametrize("safety", ResendSafety)
def test_what_is_done_is_done(safety: ResendSafety) -> None:
    assert (tried("cancel", DONE, safety), tried("replace", DONE, safety)) == ("canceled", "replaced")


@pytest.mark.parametrize("safety", ResendSafety)
def test_a_cancel_without_an_answer_is_sent_again_at_once(safety: ResendSafety) -> None:
    move = tried("cancel", UNKNOWN, safety)
    assert isinstance(move, Move)
    assert (move.status, move.in_doubt) == (RequestStatus.PENDING, True)
    assert move.delay is not None
    assert move.delay <= 0.5
    assert move.settle == (SETTLE + LEASE_LEFT if safety is C else SETTLE)


@pytest.mark.parametrize("safety", ResendSafety)
def test_a_replace_without_an_answer_is_looked_up_when_it_can_no_longer_arrive(safety: ResendSafety) -> None:
    move = tried("replace", UNKNOWN, safety)
    wait = SETTLE + LEASE_LEFT if safety is C else SETTLE
    assert isinstance(move, Move)
    assert (move.status, move.delay, move.look_up, move.settle) == (RequestStatus.UNCONFIRMED, None, wait, wait)


@pytest.mark.parametrize("in_doubt", [False, True])
def test_any_answer_to_a_cancel_but_done_is_looked_up(in_doubt: bool) -> None:
    move = tried("cancel", REFUSED, in_doubt=in_doubt)
    assert isinstance(move, Move)
    assert (move.status, move.look_up, move.code) == (RequestStatus.UNCONFIRMED, 0.0, "too_late")


def test_a_refusal_of_a_replace_is_believed_of_the_first_attempt_alone() -> None:
    assert tried("replace", REFUSED) == "replace_refused"
    move = tried("replace", REFUSED, in_doubt=True)
    assert isinstance(move, Move)
    assert (move.status, move.look_up) == (RequestStatus.UNCONFIRMED, SETTLE)


def test_what_is_proved_not_sent_waits_and_only_a_replace_fails_in_the_end(settings: Any) -> None:
    settings.PLACEMENT_MAX_ATTEMPTS = 3
    stale = NotSent("stale_request", answered=True)
    for kind, failures, in_doubt, status in (
        ("replace", 1, False, RequestStatus.PENDING),
        ("replace", 2, False, RequestStatus.FAILED),
        ("replace", 2, True, RequestStatus.UNCONFIRMED),
        ("cancel", 99, False, RequestStatus.PENDING),
    ):
        move = tried(kind, stale, failures=failures, in_doubt=in_doubt)
        assert isinstance(move, Move)
        assert (move.status, move.failed) == (status, True)


@pytest.mark.parametrize(
    "error", [NotSent("connect_failed"), NotSent("rate_limited", answered=True, trouble=VenueTrouble.PAUSED)]
)
def test_a_venue_that_is_away_costs_no_attempt(error: NotSent) -> None:
    move = tried("replace", error, failures=99)
    assert isinstance(move, Move)
    assert (move.status, move.failed) == (RequestStatus.PENDING, False)


def test_what_the_venue_has_no_function_for_fails() -> None:
    move = tried("cancel", NotSupported("cancel"))
    assert isinstance(move, Move)
    assert move.status is RequestStatus.FAILED


def test_an_end_waits_for_executions_that_the_stream_still_has() -> None:
    done = Done(venue_order_id="V1", cumulative_quantity=40)
    for reports, filled, expected in ((True, 0, "sent"), (True, 40, "canceled"), (False, 0, "canceled")):
        verdict = after_attempt(claimed("cancel", filled=filled), done, venue(reports=reports), lease_left=25.0)
        assert (str(verdict.report.kind) if isinstance(verdict, Said) else verdict.status) == expected


def test_what_came_of_a_replace_is_known_before_the_order_is_called_canceled() -> None:
    move = tried("cancel", DONE, replacing=True)
    assert isinstance(move, Move)
    assert (move.status, move.look_up) == (RequestStatus.SENT, 0.0)
    ended = shown(ReportStatus.CANCELED, NEW)
    assert found("cancel", ended, replacing=True) is found("cancel", ended, replacing=True, age=999.0) is None
    assert found("replace", ended) == "replaced"
    assert found("replace", shown(ReportStatus.CANCELED)) == "canceled"


def test_what_the_venue_has_taken_is_looked_up_later_after_each_attempt() -> None:
    for attempt, wait in ((1, 5.0), (2, 10.0), (9, 60.0)):
        move = tried("cancel", Taken(), attempt=attempt)
        assert isinstance(move, Move)
        assert (move.status, move.look_up) == (RequestStatus.SENT, wait)


@pytest.mark.parametrize("safety", ResendSafety)
def test_a_replace_that_the_venue_has_taken_is_not_sent_again_for_silence(safety: ResendSafety) -> None:
    for settled in (False, True):
        works = shown(ReportStatus.WORKING)
        assert found("replace", works, venue(safety), status="sent", settled=settled) is None
    assert found("replace", shown(ReportStatus.WORKING, NEW), venue(safety), status="sent") == "replaced"


def test_a_cancel_that_the_venue_has_taken_is_in_doubt_once_it_is_sent_again() -> None:
    move = after_look_up(looked_up("cancel", status="sent"), shown(ReportStatus.WORKING), venue())
    assert isinstance(move, Move)
    assert (move.status, move.in_doubt, move.settle) == (RequestStatus.PENDING, True, SETTLE)


def test_what_the_venue_has_taken_counts_as_refused_only_after_the_settle_time() -> None:
    works, filled = shown(ReportStatus.WORKING), shown(ReportStatus.FILLED, cumulative_quantity=100)
    for kind, answer, code in (("cancel", works, "not_now"), ("replace", works, "not_now"), ("replace", filled, "")):
        move = after_look_up(looked_up(kind, status="sent", code=code), answer, venue())
        assert isinstance(move, Move)
        assert (move.status, move.leaving, move.look_up, move.settle) == ("unconfirmed", ("sent",), SETTLE, SETTLE)
        assert found(kind, works, code=move.code) == f"{kind}_refused"


# ---- A look-up ----


@pytest.mark.parametrize("kind", ["cancel", "replace"])
@pytest.mark.parametrize("settled", [False, True])
def test_the_end_of_the_order_counts_at_once(kind: str, settled: bool) -> None:
    for status in ("canceled", "expired", "rejected"):
        assert found(kind, shown(ReportStatus(status)), settled=settled) == status


def test_no_answer_and_an_order_without_its_id_decide_nothing() -> None:
    for answer in (UNKNOWN, Report(client_order_id="x", status=ReportStatus.WORKING)):
        assert found("cancel", answer) is found("replace", answer) is None


def test_an_order_that_the_venue_does_not_know_is_for_a_person() -> None:
    assert found("cancel", None) == "unknown order"
    assert found("cancel", None, settled=False) is None


def test_a_cancel_of_an_order_that_works_on() -> None:
    works = shown(ReportStatus.WORKING)
    assert found("cancel", works, settled=False, code="too_late") is None  # an attempt may still arrive
    assert found("cancel", works, code="not_now") == "cancel_refused"
    assert found("cancel", works) == found("cancel", works, status="sent") == "again"
    assert found("cancel", works, status="pending") is None  # it is sent again already
    assert found("cancel", shown(ReportStatus.FILLED), settled=False) == "cancel_refused"


@pytest.mark.parametrize("safety", ResendSafety)
def test_a_replace_that_shows_is_done_and_one_that_does_not_is_sent_again(safety: ResendSafety) -> None:
    for settled in (False, True):
        assert found("replace", shown(ReportStatus.WORKING, NEW), venue(safety), settled=settled) == "replaced"
    assert found("replace", shown(ReportStatus.WORKING), venue(safety), settled=False) is None
    assert found("replace", shown(ReportStatus.WORKING), venue(safety)) == "again"


def test_a_replace_is_not_sent_again_where_that_could_do_harm(settings: Any) -> None:
    settings.PLACEMENT_MAX_ATTEMPTS = 3
    works = shown(ReportStatus.WORKING)
    assert found("replace", works, venue(B), age=200.0) is None  # the venue would not know it for what it is
    assert found("replace", works, venue(B), age=199.0) == "again"
    assert found("replace", works, canceling=True) is None  # nothing but the cancel is sent
    assert found("replace", works, attempt=3) is None
    assert found("replace", works, code="trading_halted") == "replace_refused"


@pytest.mark.parametrize("safety", ResendSafety)
def test_a_replace_of_an_order_with_neither_terms_is_left_to_a_person(safety: ResendSafety) -> None:
    for status, quantity, code in (
        ("working", 90, ""),
        ("working", 90, "not_now"),
        ("filled", 120, ""),
        ("working", None, ""),
    ):
        neither = shown(ReportStatus(status), OLD, quantity=quantity)
        assert found("replace", neither, venue(safety), code=code) is None
    assert found("replace", shown(ReportStatus.WORKING, OLD), venue(safety)) == "again"


def test_a_replace_of_an_order_that_is_filled_by_then_is_too_late() -> None:
    filled = shown(ReportStatus.FILLED, cumulative_quantity=100)
    assert found("replace", filled) == "replace_refused"
    assert found("replace", filled, settled=False) is None
    amended = shown(ReportStatus.FILLED, NEW, quantity=85, cumulative_quantity=85)
    assert found("replace", amended) == "replaced"  # asked for less than was filled


def test_a_filled_order_that_shows_its_old_quantity_was_not_replaced() -> None:
    less = replace(OLD, quantity=30)
    for quantity, expected in ((120, None), (100, "replace_refused"), (99, "replaced"), (30, "replaced")):
        answer = shown(ReportStatus.FILLED, OLD, quantity=quantity, cumulative_quantity=quantity)
        assert found("replace", answer, terms=less) == expected
    ended = shown(ReportStatus.EXPIRED, OLD, cumulative_quantity=40)
    assert found("replace", ended, terms=less) == "expired"
    assert found("replace", replace(ended, quantity=40), terms=less) == "replaced"


def test_an_order_that_may_have_its_old_terms_is_not_taken_for_a_replaced_one() -> None:
    dearer = replace(OLD, limit_price=Decimal(11))
    works = shown(ReportStatus.WORKING, OLD)
    for price, expected in ((Decimal("10.25"), "again"), (None, "again"), (Decimal(11), "replaced")):
        assert found("replace", replace(works, limit_price=price), terms=dearer) == expected


def test_terms_that_the_venue_does_not_say_count_as_asked() -> None:
    lasting = replace(NEW, time_in_force="gtc")
    for answer, expected in (
        (shown(ReportStatus.WORKING, NEW, time_in_force=""), "replaced"),
        (shown(ReportStatus.WORKING, NEW), None),  # a day is not good till canceled
        (shown(ReportStatus.WORKING, lasting), "replaced"),
        (shown(ReportStatus.WORKING, lasting, limit_price=None), "replaced"),
        (shown(ReportStatus.WORKING, lasting, quantity=None), None),
    ):
        assert found("replace", answer, terms=lasting) == expected
