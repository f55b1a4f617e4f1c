"""Times as an operator reads them: how long ago, in how long, and exactly, in UTC."""

from datetime import UTC, datetime, timedelta

from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

_SCALES = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))


def stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def span(length: timedelta) -> str:
    """Two units at most, and one where the second says little: `12 s`, `4 min 10 s`, `3 h 5 min`, `19 d`."""
    seconds = max(0, round(length.total_seconds()))
    for size, unit, smaller, small_unit in _SCALES:
        if seconds >= size:
            whole, rest = divmod(seconds, size)
            part = rest // smaller
            return f"{whole} {unit} {part} {small_unit}" if part and whole < 10 else f"{whole} {unit}"
    return f"{seconds} s"


def age(at: datetime) -> str:
    return span(timezone.now() - at)


def ahead(at: datetime) -> str:
    """`in 12 s`, or `now` for what is due."""
    left = at - timezone.now()
    return f"in {span(left)}" if left >= timedelta(seconds=0.5) else "now"


def exact(text: str, at: datetime) -> SafeString:
    """A relative time. Pointing at it shows the exact one."""
    return format_html(
        '<time datetime="{}" title="{}" class="whitespace-nowrap">{}</time>', at.isoformat(), stamp(at), text
    )
