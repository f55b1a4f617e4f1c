"""Which venues take orders, and what they take, as every order is checked against.

Kept in each process and read anew after a second: who enables, disables or changes a venue in the console has
to wait that long. Sending does not go by this; whether a venue is halted is asked of its row at every claim.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

from cachetools import TTLCache, cached

from exchanges.models import Venue
from exchanges.registry import capabilities_of
from exchanges.venue import Capabilities
from quiktrade import waiting

logger = logging.getLogger(__name__)

SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Listing:
    code: str
    is_default: bool
    capabilities: Capabilities | None
    """None where its row names no adapter that works: its orders are accepted, and wait for an operator."""


@cached(TTLCache[object, Mapping[str, Listing]](maxsize=1, ttl=SECONDS), lock=Lock())
def listings() -> Mapping[str, Listing]:
    """The enabled venues by code, in the order of their codes."""
    return waiting.aside(_read)


def _read() -> Mapping[str, Listing]:
    enabled = Venue.objects.filter(enabled=True).order_by("code")
    return {venue.code: Listing(venue.code, venue.is_default, capabilities_if_usable(venue)) for venue in enabled}


def capabilities_if_usable(venue: Venue) -> Capabilities | None:
    """What the venue can do; None where its row names no adapter that works, which is logged."""
    try:
        return capabilities_of(venue.adapter, venue.settings)
    except (LookupError, ValueError) as error:
        logger.error("Venue cannot be opened", extra={"venue": venue.code, "error": error})
        return None
