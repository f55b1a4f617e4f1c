"""The venues that take orders, and what they take. Every order is checked against this.

Kept in each process and read again after a second: who enables, disables or changes a venue in the console has
to wait that long. Sending does not use it: every claim reads from the venue's row whether it is halted.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

from cachetools import TTLCache, cached

from exchanges.models import Venue
from exchanges.registry import capabilities_of
from exchanges.venue import Capabilities
from quiktrade.database.batching import Batcher

logger = logging.getLogger(__name__)

SECONDS = 1.0
MOST_READINGS = 10_000


@dataclass(frozen=True, slots=True)
class Listing:
    code: str
    is_default: bool
    capabilities: Capabilities | None
    """None if its adapter cannot be opened. Its orders are accepted, and wait for an operator."""


@cached(TTLCache[object, Mapping[str, Listing]](maxsize=1, ttl=SECONDS), lock=Lock())
def listings() -> Mapping[str, Listing]:
    """The enabled venues by code, in the order of their codes."""
    found: list[Mapping[str, Listing]] = []
    _readings.do(found)
    return found[0]


def _read(wanted: Sequence[list[Mapping[str, Listing]]]) -> None:
    """Read the venues once for all requests that find the cached ones expired at the same time."""
    enabled = Venue.objects.filter(enabled=True).order_by("code")
    found = {venue.code: Listing(venue.code, venue.is_default, capabilities_if_usable(venue)) for venue in enabled}
    for each in wanted:
        each.append(found)


_readings = Batcher(_read, most=MOST_READINGS)


@cached(TTLCache[object, Mapping[str, Capabilities | None]](maxsize=1, ttl=SECONDS), lock=Lock())
def all_capabilities() -> Mapping[str, Capabilities | None]:
    """What each venue can do, disabled ones too: their orders can be canceled. None if it cannot be opened."""
    return {venue.code: capabilities_if_usable(venue) for venue in Venue.objects.all()}


def capabilities_if_usable(venue: Venue) -> Capabilities | None:
    """What the venue can do. None if its adapter cannot be opened, which is logged."""
    try:
        return capabilities_of(venue.adapter, venue.settings)
    except (LookupError, ValueError) as error:
        logger.error("Venue cannot be opened", extra={"event": "venue.unusable", "venue": venue.code, "error": error})
        return None
