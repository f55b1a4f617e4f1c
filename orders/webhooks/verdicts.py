"""What an attempt to deliver means: pure functions of the receiver's answer."""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import uniform
from typing import NamedTuple

RETRY_SECONDS = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""The waits after the first failure, the second … A failure after the last of them is the end: a dead letter. All waits
together are 75 hours."""
JITTER = 0.2
"""A wait is longer or shorter by up to this part, so that what failed together does not come back together."""

SLOW_SECONDS = 5.0
"""A receiver that takes longer is slow: it shares a few places with those that fail."""
SLOWED_BY = (429, 502, 504)
SLOW_DOWN_SECONDS = 60.0
"""Nothing more is sent for this long to a receiver that answered one of those without a Retry-After."""
LONGEST_PAUSE_SECONDS = 86_400.0
GONE = 410


class Answer(NamedTuple):
    """What came of one attempt. Without a `code` no answer came, and `text` says why."""

    code: int | None
    text: str
    seconds: float
    retry_after: float | None = None
    interrupted: bool = False
    """We gave the attempt up before its time, because this process had to go on to other work."""


class Verdict(NamedTuple):
    """`delay` is in seconds until the next attempt; None: there is none. `pause` keeps all else from the endpoint."""

    delivered: bool
    delay: float | None
    pause: float = 0.0
    counted: bool = True
    gone: bool = False
    slow: bool = False


def verdict(answer: Answer, failures: int, spread: Callable[[float, float], float] = uniform) -> Verdict:
    """What the answer means for a delivery that failed this many times before."""
    slow = answer.seconds > SLOW_SECONDS or answer.interrupted
    if answer.code is not None and 200 <= answer.code < 300:
        return Verdict(True, None, slow=slow)
    if answer.interrupted:
        return Verdict(False, 0.0, counted=False, slow=slow)
    pause = min(answer.retry_after or 0.0, LONGEST_PAUSE_SECONDS)
    if answer.code in SLOWED_BY and not pause:
        pause = SLOW_DOWN_SECONDS
    delay = None
    if failures < len(RETRY_SECONDS):
        delay = max(RETRY_SECONDS[failures] * spread(1 - JITTER, 1 + JITTER), pause)
    return Verdict(False, delay, pause, gone=answer.code == GONE, slow=slow)


def retry_after(text: str | None, now: datetime) -> float | None:
    """The header (RFC 9110, 10.2.3), a number of seconds or a date, in seconds; None if it is absent or unreadable."""
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        date = parsedate_to_datetime(text)
        date = date.replace(tzinfo=UTC) if date.tzinfo is None else date
        return max(0.0, (date - now).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
