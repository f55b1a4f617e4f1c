"""Each safeguard is needed: the same history is harmless with it and ends in a violation without it."""

import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import pytest

from exchanges import registry
from exchanges.venue import NotSent, OrderRejected, ResendSafety, VenueError
from orders import lifecycle, verdicts
from orders.lifecycle import Event, MovedOrder, Step
from orders.models import Order
from orders.tests.test_histories import Histories
from quiktrade.local.venv import ROOT

pytestmark = pytest.mark.django_db


# ---- Histories ----


def an_attempt_wakes_up_when_the_next_is_under_way(story: Histories) -> None:
    story.a_client_submits(None)
    story.a_worker_claims(1)
    (late,) = story.held
    story.time_passes(35)
    story.the_sweep_runs()
    story.time_passes(11)
    story.reconciliation_runs(True)
    story.time_passes(35)
    story.a_worker_claims(1)
    story.held.reverse()
    story.a_worker_sends(0, False)
    story._record(late, NotSent("late", answered=True))
    story.a_client_cancels(0)
    story.a_request_arrives(0, False, False)


def the_venue_is_asked_before_the_request_has_arrived(story: Histories) -> None:
    _an_attempt_gets_no_answer(story)
    story.time_passes(1)
    story.reconciliation_runs(True)
    story.an_operator_says_that_what_is_parked_is_not_there()
    story.a_request_arrives(0, False, False)


def a_client_cancels_what_is_in_doubt(story: Histories) -> None:
    _an_attempt_gets_no_answer(story)
    late = story.wire[0]
    story.time_passes(11)
    story.reconciliation_runs(True)
    story.a_client_cancels(0)
    story.wire.append(late)
    story.a_request_arrives(0, False, False)


def a_request_arrives_twice_and_the_first_reply_is_lost(story: Histories) -> None:
    _an_order_is_sent(story)
    story.a_request_arrives(0, False, True)
    story.a_reply_is_lost(0)
    story.a_request_arrives(0, False, False)
    story.a_reply_arrives(0)


def a_request_is_given_up_and_arrives_all_the_same(story: Histories) -> None:
    _an_attempt_gets_no_answer(story)
    _send_what_is_due(story)
    story.a_request_arrives(0, False, False)


def a_request_outlives_the_settle_time(story: Histories) -> None:
    _an_attempt_gets_no_answer(story)
    late = story.wire[0]
    story.time_passes(11)
    story.reconciliation_runs(True)
    _send_what_is_due(story)
    story.wire.append(late)
    story.a_request_arrives(0, False, False)


def a_worker_dies_after_it_has_sent(story: Histories) -> None:
    _an_order_is_sent(story)
    story.a_request_arrives(0, False, False)
    story.a_worker_dies(0)
    _send_what_is_due(story)


def _an_order_is_sent(story: Histories) -> None:
    story.a_client_submits(None)
    story.a_worker_claims(1)
    story.a_worker_sends(0, False)


def _an_attempt_gets_no_answer(story: Histories) -> None:
    _an_order_is_sent(story)
    story.a_worker_gives_up_waiting(0)


def _send_what_is_due(story: Histories) -> None:
    story.time_passes(4)
    for _ in range(2):
        if Order.objects.filter(status="pending").exists():
            story.a_worker_claims(1)
            story.a_worker_sends(0, False)
            story.wire.insert(0, story.wire.pop())
            story.a_request_arrives(0, False, False)


# ---- The safeguards, taken away ----


@contextmanager
def without_the_fence() -> Iterator[None]:
    """A negative answer to any worker counts against whatever attempt is in flight."""
    unfenced = lifecycle._ADVANCE.replace("(wanted.attempt IS NULL OR wanted.attempt = o.attempt)", "true")
    assert unfenced != lifecycle._ADVANCE
    with patch.object(lifecycle, "_ADVANCE", unfenced):
        yield


@contextmanager
def without_the_settle_time() -> Iterator[None]:
    """What the venue does not know is taken to be absent, however fresh the request is."""
    with patch.object(verdicts, "longest_attempt", lambda capabilities: 0.0):
        yield


@contextmanager
def without_the_doubt() -> Iterator[None]:
    """An order that the venue once did not know may be ended, although it may still arrive there."""
    with patch.object(lifecycle, "NOT_IN_DOUBT", ()):
        yield


@contextmanager
def with_duplicates_taken_for_refusals() -> Iterator[None]:
    """The venue's "I know this id" counts as its refusal of the order."""
    real = verdicts.failed_step

    def failed_step(order: MovedOrder, error: VenueError, *args: Any, **kwargs: Any) -> Step:
        if error.code == "duplicate_client_order_id":
            error = OrderRejected(error.code)
        return real(order, error, *args, **kwargs)

    with patch.object(verdicts, "failed_step", failed_step):
        yield


@contextmanager
def with_timeouts_taken_for_failures() -> Iterator[None]:
    """What got no answer counts as not sent."""
    real = verdicts.failed_step

    def failed_step(order: MovedOrder, error: VenueError, *args: Any, **kwargs: Any) -> Step:
        if error.code == "timeout":
            error = NotSent(error.code, answered=True)
        return real(order, error, *args, **kwargs)

    with patch.object(verdicts, "failed_step", failed_step):
        yield


@contextmanager
def with_resends_of_what_is_in_doubt() -> Iterator[None]:
    """An order that the venue does not know is sent again, whatever the venue's class."""
    real = verdicts.conclude

    def conclude(order_id: Any, attempt: int, *found: Any) -> Any:
        conclusion = real(order_id, attempt, *found)
        if isinstance(conclusion, verdicts.Park):
            return Step(order_id=order_id, event=Event.NOT_FOUND, attempt=attempt, delay=0.0)
        return conclusion

    with patch.object(verdicts, "conclude", conclude):
        yield


Case = tuple[Callable[[Histories], None], Callable[[], AbstractContextManager[None]], dict[str, Any], dict[str, Any]]

NOTHING = {"safety": ResendSafety.NOTHING}
STALE = {"safety": ResendSafety.REFUSES_STALE_REQUESTS}
CASES: dict[str, Case] = {
    "the fence": (an_attempt_wakes_up_when_the_next_is_under_way, without_the_fence, STALE, {}),
    "the settle time": (
        the_venue_is_asked_before_the_request_has_arrived,
        without_the_settle_time,
        NOTHING,
        {"settle": 0.0},
    ),
    "the doubt": (a_client_cancels_what_is_in_doubt, without_the_doubt, {}, {}),
    "the duplicate rule": (
        a_request_arrives_twice_and_the_first_reply_is_lost,
        with_duplicates_taken_for_refusals,
        {},
        {},
    ),
    "a timeout is not a failure": (
        a_request_is_given_up_and_arrives_all_the_same,
        with_timeouts_taken_for_failures,
        NOTHING,
        {},
    ),
    "parking": (a_request_outlives_the_settle_time, with_resends_of_what_is_in_doubt, NOTHING, {}),
    "mark before send": (a_worker_dies_after_it_has_sent, nullcontext, NOTHING, {"claims_are_committed": False}),
}


def run(history: Callable[[Histories], None], fields: dict[str, Any]) -> None:
    story = type("Story", (Histories,), fields)()
    try:
        story.start()
        history(story)
        story.no_order_is_live_twice()
        story.no_order_that_is_called_ended_is_live()
        story.the_history_is_the_transitions()
    finally:
        registry.ADAPTERS.pop("scripted", None)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_with_the_safeguard_the_history_is_harmless(case: Case) -> None:
    history, _, venue, _ = case
    run(history, venue)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_without_the_safeguard_it_ends_in_a_violation(case: Case) -> None:
    history, removal, venue, change = case
    with removal(), pytest.raises(AssertionError):
        run(history, {**venue, **change})


def test_every_safeguard_that_the_mutants_take_out_is_in_the_code() -> None:
    mutants = tomllib.loads((ROOT / "orders/tests/mutants.toml").read_text())["mutant"]
    absent = [m["name"] for m in mutants if (ROOT / m["file"]).read_text().count(m["text"]) != 1]
    assert absent == []
    assert all((ROOT / test.split("::")[0]).exists() for mutant in mutants for test in mutant["tests"])
