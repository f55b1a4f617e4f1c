"""Every line of the log has one event by which it is found. The code is walked through for that."""

import re
from collections import Counter

import pytest

from quiktrade.local.venv import ROOT
from quiktrade.tests.log_calls import GIVEN, NAME, LogCall, log_calls

CALLS = log_calls()


def test_the_walk_through_the_code_finds_the_calls_that_log() -> None:
    assert len(CALLS) > 90
    assert {call.event for call in CALLS} >= {"venue.halted", "session.lost", "order.stale_*", "order.two_at_venue"}


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.place)
def test_every_line_has_one_event_by_which_it_is_found(call: LogCall) -> None:
    assert call.event == GIVEN or NAME.fullmatch(call.event)


def test_no_two_places_share_an_event() -> None:
    """Two that begin with the same constant say of which order's event they tell."""
    names = Counter(call.event for call in CALLS if call.event != GIVEN and not call.event.endswith("*"))
    assert [name for name, times in names.items() if times > 1] == []


def test_the_documents_list_every_event() -> None:
    document = (ROOT / "docs/logs.md").read_text()
    assert set(re.findall(r"^\| `(\S+)`", document, re.MULTILINE)) == {c.event for c in CALLS if c.event != GIVEN}
