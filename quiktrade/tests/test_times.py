"""Times as operators read them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from django.utils import timezone as django_timezone

from quiktrade.console.times import age, ahead, exact, span, stamp

NOON = datetime(2026, 11, 25, 12, 0, 0, 900_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (0.4, "0 s"),
        (0.6, "1 s"),
        (59, "59 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (250, "4 min 10 s"),
        (600, "10 min"),
        (605, "10 min"),
        (3_599, "59 min"),
        (3_600, "1 h"),
        (11_100, "3 h 5 min"),
        (36_000, "10 h"),
        (86_399, "23 h"),
        (86_400, "1 d"),
        (90_000, "1 d 1 h"),
        (19 * 86_400 + 7_200, "19 d"),
        (4_000 * 86_400, "4000 d"),
    ],
)
def test_a_span_has_two_units_at_most(seconds: float, text: str) -> None:
    assert span(timedelta(seconds=seconds)) == text


def test_an_exact_time_is_in_utc_and_cut_to_the_second() -> None:
    assert stamp(NOON) == "2026-11-25 12:00:00 UTC"
    assert stamp(NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))) == "2026-11-25 12:00:00 UTC"


def test_how_long_ago_and_in_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(django_timezone, "now", lambda: NOON)
    assert age(NOON - timedelta(minutes=4, seconds=10)) == "4 min 10 s"
    assert age(NOON + timedelta(seconds=3)) == "0 s"  # written by a clock that is ahead
    assert ahead(NOON + timedelta(seconds=12)) == "in 12 s"


@pytest.mark.parametrize("seconds", [0.4, 0.0, -100.0])
def test_what_is_due_is_due_now(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(django_timezone, "now", lambda: NOON)
    assert ahead(NOON + timedelta(seconds=seconds)) == "now"


def test_a_relative_time_tells_the_exact_one_and_is_safe_to_show() -> None:
    assert exact("<1 s ago", NOON) == (
        '<time datetime="2026-11-25T12:00:00.900000+00:00" title="2026-11-25 12:00:00 UTC" '
        'class="whitespace-nowrap">&lt;1 s ago</time>'
    )
