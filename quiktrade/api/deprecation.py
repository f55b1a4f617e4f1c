"""How clients are told that an operation will end: the headers `Deprecation` (RFC 9745) and `Sunset` (RFC 8594).

A view names such operations in `deprecated`, by the action's name; one that is no viewset, by the method:

    deprecated = {"list": Deprecated(since=datetime(2030, 1, 1, tzinfo=UTC), sunset=..., link="https://...")}

The description of the API says the same.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.http import http_date


@dataclass(frozen=True, kw_only=True)
class Deprecated:
    """From `since` on clients should use something else, and `link` says what. After `sunset` it may be gone."""

    since: datetime
    sunset: datetime | None = None
    link: str

    def __post_init__(self) -> None:
        for at in (self.since, self.sunset):
            if at is not None and at.tzinfo is None:
                raise ValueError("The times of a deprecation need a time zone.")
        if self.sunset is not None and self.sunset < self.since:
            raise ValueError("What is deprecated ends after it was deprecated (RFC 9745, 4).")

    def headers(self) -> dict[str, str]:
        headers = {"Deprecation": f"@{int(self.since.timestamp())}", "Link": f'<{self.link}>; rel="deprecation"'}
        if self.sunset is not None:
            headers["Sunset"] = http_date(self.sunset.timestamp())
            headers["Link"] += f', <{self.link}>; rel="sunset"'
        return headers


def deprecation_of(view: Any, action: str) -> Deprecated | None:
    """What the view's class, or the view, says of an action."""
    by_action: dict[str, Deprecated] = getattr(view, "deprecated", {})
    return by_action.get(action)
