"""Adapters by name. A new venue is one module in `adapters/`, one line here and one conformance subclass."""

from collections.abc import Callable, Mapping
from typing import Any

from exchanges.adapters.simulator import SimulatorVenue
from exchanges.venue import Capabilities, Venue

ADAPTERS: dict[str, Callable[[Mapping[str, Any]], Venue]] = {
    "simulator": SimulatorVenue,
}


def open_venue(adapter: str, settings: Mapping[str, Any]) -> Venue:
    """Make the adapter named, with a venue row's settings, for the running event loop.

    Raises: LookupError for an adapter that is not installed, ValueError for settings it cannot use, and nothing else: a
    caller that opens several venues can continue with the others.
    """
    try:
        make = ADAPTERS[adapter]
    except KeyError:
        raise LookupError(f"no venue adapter {adapter!r}; installed: {', '.join(sorted(ADAPTERS))}") from None
    try:
        return make(settings)
    except ValueError:
        raise
    except Exception as error:
        # The adapter's message is left out: it may repeat a setting, which may be a secret.
        raise ValueError(f"the adapter cannot use these settings ({type(error).__name__})") from None


def capabilities_of(adapter: str, settings: Mapping[str, Any]) -> Capabilities:
    """What the venue can do, without opening a connection to it."""
    return open_venue(adapter, settings).capabilities
