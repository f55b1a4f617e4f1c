"""10: how much longer the slowest single orders take beside whatever else clients and operators do.

Eight connections post without a pause. Beside them there are, each second, a batch of 500 orders, a log-in, whose
password is hashed, and two pages of the console.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from benchmarks.speed.load import Answers
from benchmarks.speed.session import SINGLE, Session
from benchmarks.speed.stage import Server

CONNECTIONS = 8
BATCHES_A_SECOND = 1.0
BATCH = 500
PAGES_A_SECOND = 2.0
LOG_INS = {"QUIKTRADE_TOKEN_RATE": "1000/min"}
PAGES = ["/admin/", "/admin/orders/order/", "/admin/exchanges/venue/"]


def measure(session: Session) -> None:
    stage = session.stage
    with stage.web(**LOG_INS) as web, stage.console() as console:
        headers = stage.headers(web)
        posts = partial(session.load, web, SINGLE, headers=headers, connections=CONNECTIONS)

        def alone(seconds: float) -> Answers:
            return posts(seconds=seconds)

        def mixed(seconds: float) -> Answers:
            with _others(session, web, console, headers, seconds):
                return posts(seconds=seconds)

        found = session.interleave({"posts": alone, "posts beside all else": mixed})
    session.measure(
        "single POST beside batches, log-ins and the console, p99", "ms",
        [answers.latency["p99"] for answers in found["posts beside all else"]],
        against="posts alone", reference=[answers.latency["p99"] for answers in found["posts"]],
        target=2.0, at_most=True,
    )  # fmt: skip


@contextmanager
def _others(session: Session, web: Server, console: Server, headers: dict[str, str], seconds: float) -> Iterator[None]:
    """Do everything else as long as the posts last. If any of it fails, the measurement fails."""
    stop = threading.Event()
    cookie = session.stage.session_cookie()
    others: list[Callable[[], object]] = [
        partial(
            session.load, web, "/api/v1/orders/batch", headers=headers, batch=BATCH, connections=4,
            rate=BATCHES_A_SECOND, seconds=seconds,
        ),
        partial(
            session.load, console, paths=PAGES, headers=cookie, connections=2, rate=PAGES_A_SECOND, seconds=seconds
        ),
        partial(_log_in, session, web, stop),
    ]  # fmt: skip
    with ThreadPoolExecutor(len(others)) as pool:
        begun = [pool.submit(other) for other in others]
        try:
            yield
        finally:
            stop.set()
        for other in begun:
            other.result()


def _log_in(session: Session, web: Server, stop: threading.Event) -> None:
    while not stop.wait(1.0):
        session.stage.headers(web)
