"""Answers `GET /metrics` with the numbers of all processes of this machine, at an address of its own.

One process of the machine listens, and another one goes on when it ends. It is a thread of a process that does other
work: a web worker, a job process or a session. None of them is asked to fork while the thread runs.
"""

import logging
import threading
import time
from collections.abc import Iterable

from django.conf import settings
from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector

from quiktrade.file_lock import try_lock
from quiktrade.metrics.counting import PLACE
from quiktrade.metrics.gauges import FromRows
from quiktrade.metrics.place import Place

logger = logging.getLogger(__name__)

TAKE_OVER_SECONDS = 0.5
TRY_AGAIN_SECONDS = 10.0


def serve() -> None:
    """Have this process listen as soon as no other does, if metrics are on."""
    if PLACE is not None:
        threading.Thread(target=_serve, args=(PLACE,), name="metrics", daemon=True).start()


class _OfAll(MultiProcessCollector):
    def __init__(self, registry: CollectorRegistry, place: Place) -> None:
        super().__init__(registry, path=str(place.folder))  # type: ignore[no-untyped-call]
        self._place = place

    def collect(self) -> Iterable[Metric]:
        self._place.forget_the_dead()
        numbers: Iterable[Metric] = super().collect()  # type: ignore[no-untyped-call]
        return numbers


def numbers_of_all(place: Place) -> CollectorRegistry:
    registry = CollectorRegistry()
    _OfAll(registry, place)
    registry.register(FromRows())
    return registry


def _serve(place: Place) -> None:
    lock = place.lock("listener")  # held from here to the end of the process
    while not try_lock(lock):
        time.sleep(TAKE_OVER_SECONDS)
    registry, told = numbers_of_all(place), False
    host, port = settings.METRICS_HOST, settings.METRICS_PORT
    while True:
        try:
            start_http_server(port, addr=host, registry=registry)
        except OSError as error:
            if not told:
                fields = {"event": "metrics.not_served", "host": host, "port": port, "error": error.strerror}
                logger.error("Metrics cannot be served at their address, trying again", extra=fields)
            told = True
            time.sleep(TRY_AGAIN_SECONDS)
        else:
            logger.info("Metrics are served", extra={"event": "metrics.served", "host": host, "port": port})
            return
