"""What an answer of a receiver means, worked out by hand."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from standardwebhooks import Webhook

from orders.webhooks.verdicts import Answer, Verdict, retry_after, verdict
from quiktrade.signing import new_secret, signed_headers

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


def exactly(low: float, high: float) -> float:
    return (low + high) / 2


@pytest.mark.parametrize(
    ("answer", "failures", "expected"),
    [
        (Answer(200, "", 0.1), 0, Verdict(True, None)),
        (Answer(299, "", 0.1), 9, Verdict(True, None)),
        (Answer(200, "", 6.0), 0, Verdict(True, None, slow=True)),
        (Answer(500, "", 0.1), 0, Verdict(False, 5)),
        (Answer(None, "no answer", 15.0), 0, Verdict(False, 5, slow=True)),
        (Answer(500, "", 0.1), 1, Verdict(False, 300)),
        (Answer(500, "", 0.1), 8, Verdict(False, 86_400)),
        (Answer(500, "", 0.1), 9, Verdict(False, None)),
        (Answer(302, "", 0.1), 0, Verdict(False, 5)),
        (Answer(100, "", 0.1), 0, Verdict(False, 5)),
        (Answer(410, "", 0.1), 0, Verdict(False, 5, gone=True)),
        (Answer(429, "", 0.1), 0, Verdict(False, 60, 60)),
        (Answer(429, "", 0.1, 5.0), 0, Verdict(False, 5, 5)),
        (Answer(429, "", 0.1, 5.0), 2, Verdict(False, 1_800, 5)),
        (Answer(503, "", 0.1, 7_200.0), 0, Verdict(False, 7_200, 7_200)),
        (Answer(503, "", 0.1, 1e9), 0, Verdict(False, 86_400, 86_400)),
        (Answer(None, "given up", 0.5, interrupted=True), 3, Verdict(False, 0, counted=False, slow=True)),
    ],
)
def test_what_an_answer_means(answer: Answer, failures: int, expected: Verdict) -> None:
    assert verdict(answer, failures, spread=exactly) == expected


def test_the_wait_is_spread_by_a_fifth_to_either_side() -> None:
    least = verdict(Answer(500, "", 0.1), 1, spread=lambda low, high: low)
    most = verdict(Answer(500, "", 0.1), 1, spread=lambda low, high: high)
    assert (least.delay, most.delay) == (240, 360)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("120", 120),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("9" * 400, 999_999_999),
        ("Sat, 31 Jan 2026 09:31:00 GMT", 60),
        ("Sat, 31 Jan 2026 09:29:00 GMT", 0),
        ("soon", None),
        ("Sat, 99 Jan 2026 09:31:00 GMT", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(text: str | None, seconds: float | None) -> None:
    assert retry_after(text, NOW) == seconds


def test_a_time_that_is_not_in_utc_is_signed_as_the_moment_that_it_is() -> None:
    """The library replaces the time zone instead of converting the time."""
    secret = new_secret()
    moment = datetime.now(timezone(timedelta(hours=5)))
    headers = signed_headers("evt_1", "{}", secrets=[secret], at=moment)
    assert headers["webhook-timestamp"] == str(int(moment.timestamp()))
    assert Webhook(secret).verify("{}", headers) == {}


def test_a_secret_is_as_the_standard_has_it_and_never_twice_the_same() -> None:
    one, other = new_secret(), new_secret()
    assert one != other
    assert one.startswith("whsec_")
    assert len(one) == len("whsec_") + 44
