"""Reads the header `traceparent` (W3C Trace Context). An order's row keeps its request's context in the same form."""

import re

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


def parsed(text: str) -> tuple[str, str, str] | None:
    """The trace, the span and the flags that it names; None if it is no such header."""
    found = _TRACEPARENT.fullmatch(text)
    return (found[1], found[2], found[3]) if found else None


def trace_of(text: str | None) -> str | None:
    found = parsed(text) if text else None
    return found[0] if found else None
