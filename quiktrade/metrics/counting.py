"""Makes counters and histograms, of which all processes of a machine have one sum.

Each returned function takes the values of the labels, in their order, and returns what to count with:

    ACCEPTED = counter("orders_accepted", "Orders that were accepted.", "venue", "how")
    ACCEPTED("XSIM", "stored").inc()

Labels have few values: venues, routes, and words that are listed in the code. Never a client, an instrument, an order
or an address: each new value costs memory in every process and every reader for as long as they run.
"""

import logging
import os
from collections.abc import Callable, Sequence
from functools import cache

from django.conf import settings
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values

from quiktrade.metrics import room
from quiktrade.metrics.place import Place

logger = logging.getLogger(__name__)

REGISTRY = CollectorRegistry()
"""Of all metrics that this process knows, with its own numbers only: `listener` adds those of all processes up."""

# fmt: off
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
LONG_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
# fmt: on


def _share() -> Place | None:
    """Have this process's numbers kept in files, if they are to be shown. Called before the first metric is made."""
    if not settings.METRICS_PORT:
        return None
    place = Place(settings.METRICS_PORT)
    try:
        place.enter()
    except OSError as error:  # nobody is refused an order because there is no room for a count
        logger.error("Metrics are off: their folder cannot be used", extra={"event": "metrics.off", "error": error})
        return None
    room.use()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(place.folder)
    values.ValueClass = values.MultiProcessValue(place.slot)  # type: ignore[no-untyped-call]
    os.register_at_fork(after_in_child=place.forget_slot)
    return place


PLACE = _share()


def counter(name: str, text: str, *labels: str) -> Callable[..., Counter]:
    """The name is written without its prefix `quiktrade_`, and is exposed with the suffix `_total`."""
    metric = Counter(f"quiktrade_{name}", text, labels, registry=REGISTRY)
    return cache(metric.labels) if labels else lambda: metric


def histogram(name: str, text: str, *labels: str, buckets: Sequence[float] = SECONDS) -> Callable[..., Histogram]:
    """Its `_count` is a counter, so there need be no other beside it."""
    metric = Histogram(f"quiktrade_{name}", text, labels, buckets=buckets, registry=REGISTRY)
    return cache(metric.labels) if labels else lambda: metric


def gauge(name: str, text: str) -> Gauge:
    """How this process stands. The processes that live are added up."""
    return Gauge(f"quiktrade_{name}", text, multiprocess_mode="livesum", registry=REGISTRY)
