"""Limits how many requests a process of the API serves at the same time.

Normally the limit is `most`: some requests of a burst wait a little, all of them are served, and the excess is
refused. While many requests are refused, a high limit only makes the admitted ones wait for each other, since a few
of them keep the processor busy. Only where each request waits long for the database are more needed. So under overload
the limit starts at `FEW` and is doubled as long as each doubling clearly raises the rate. Every `ANEW_SECONDS` the
search starts again.

When in doubt the limit is high: a limit that is too high costs time, and one that is too low costs orders.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from quiktrade.metrics.names import WEB_IN_HAND, WEB_ROOM, WEB_SHED, WEB_SHED_OF_CLIENT
from quiktrade.web.live import LiveResponse
from quiktrade.web.receiving import receive
from quiktrade.web.refusals import REFUSALS

FEW = 3
ENOUGH_TO_BEGIN, ENOUGH_TO_GO_ON = 0.5, 1.0
"""Requests refused for each one admitted, for the limit to be lowered and to stay low. A low limit serves fewer
requests, so more of the same load is refused."""
CLEARLY_MORE = 1.4
"""The factor by which twice the limit must raise the rate. A smaller gain is chance, or not worth the wait."""
PERIOD_SECONDS = 0.1
"""The shortest period. Where answers take longer, it lasts until every place has been used twice."""
STUCK_SECONDS = 1.0
"""The longest period. If a few requests are not answered by then, the processor is not what they wait for."""
ANEW_SECONDS = 10.0


class Admission:
    """Counts the requests of one thread: its greenlets, none of which waits in here."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = self.limit = self._limit_before = most
        self.in_hand = 0
        self._lowered = self._growing = False
        self._lowered_at = self._rate = 0.0
        self._clock = clock
        self._last = clock()
        """When the last request came, taken or not."""
        self._taken_before = self._refused_before = self._taken = self._refused = 0
        self._start_period(self._last)

    def take(self, *, read: bool = False) -> bool:
        """Admit a request, unless the limit is reached. Each one admitted ends in `done()`."""
        if self.refuse(read=read):
            return False
        self.in_hand += 1
        self._taken += 1
        return True

    def refuse(self, *, read: bool = False) -> bool:
        """Whether the limit is reached. Then the request in question is refused, and counted.

        A quarter of the places is not for reads, so that many slow ones keep no order out.
        """
        now = self._clock()
        paused = now - self._last >= PERIOD_SECONDS  # whatever there was, it is over
        if paused or now - self._since >= (PERIOD_SECONDS if self._tried else STUCK_SECONDS):
            self._look_back(now, paused=paused)
        self._last = now
        if self.in_hand < self.limit - (self.limit // 4 if read else 0):
            return False
        self._refused += 1
        return True

    @property
    def counts(self) -> tuple[int, int]:
        """The requests admitted and refused since this process began."""
        return self._taken_before + self._taken, self._refused_before + self._refused

    def done(self) -> None:
        self.in_hand -= 1
        self._done += 1

    @property
    def _tried(self) -> bool:
        """Every place has been used twice in this period."""
        return self._done >= 2 * self.limit

    def _look_back(self, now: float, *, paused: bool) -> None:
        enough = ENOUGH_TO_GO_ON if self._lowered else ENOUGH_TO_BEGIN
        if paused or not self._tried or self._refused <= enough * self._taken:
            self.limit, self._lowered = self.most, False
        elif not self._lowered or now - self._lowered_at >= ANEW_SECONDS:
            self._lowered, self._lowered_at = True, now
            self.limit = self._limit_before = min(FEW, self.most)
            self._rate, self._growing = 0.0, True
        elif self._growing and self._done - self._taken <= FEW:  # else those of the higher limit before are among them
            self._grow(self._done / (now - self._since))
        self._start_period(now)

    def _grow(self, rate: float) -> None:
        """Double the limit; or undo the last doubling, and leave it at that."""
        if rate >= CLEARLY_MORE * self._rate:
            self._limit_before, self._rate = self.limit, rate
            self.limit = min(2 * self.limit, self.most)
        else:
            self.limit, self._growing = self._limit_before, False

    def _start_period(self, now: float) -> None:
        self._since = now
        self._taken_before += self._taken
        self._refused_before += self._refused
        self._taken = self._refused = self._done = 0


READS = ("GET", "HEAD", "OPTIONS")
CANCEL = ("/cancel", "/cancel/")
PROBES = ("/healthz", "/readyz")
"""They are always answered: an orchestrator takes a process that does not answer for dead, though it is only busy."""


def _token(environ: dict[str, Any]) -> str:
    """The token by itself: what stands before it may be spelled in many ways. Empty, if there is none."""
    header: str = environ.get("HTTP_AUTHORIZATION", "")
    return (header.split() or [""])[-1]


class Admitting:
    """A WSGI application that lets another one serve a limited number of requests at a time, and refuses the others.

    A request is received in full before it takes a place, and its place is free again before its answer is written:
    a slow client holds none, and neither does an answer that goes on.

    `most_of_client` bounds how many places one client has. It is known by its token: which account that is of would
    only be found out by half of the work that is to be avoided. Cancels are not bound, as they reduce risk.
    """

    def __init__(self, application: Any, most: int, most_body: int, most_of_client: int = 0) -> None:
        """`most_of_client` 0: any number."""
        self._application = application
        self._admission = Admission(most)
        self._most_body = most_body
        self._most_of_client = most_of_client
        self._in_hand_of: Counter[str] = Counter()

    def refuses(self, method: str, path: str) -> bool:
        """Whether a request is one too many, for a server to ask before it makes an environ.

        Most requests of a flood are refused, and to make an environ costs as much as to read the request. What is
        not refused here may be refused when it is called for.
        """
        refused = path not in PROBES and self._admission.refuse(read=method in READS)
        if refused:
            WEB_SHED().inc()
        return refused

    def sample(self) -> None:
        """Show how many requests are in hand. A server calls it every second, which costs less than in each request."""
        WEB_IN_HAND.set(self._admission.in_hand)
        WEB_ROOM.set(self._admission.limit)

    def counts(self) -> tuple[int, int]:
        return self._admission.counts

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        receive(environ, self._most_body)
        if environ["PATH_INFO"] in PROBES:
            return self._answer(environ, start_response)
        client = _token(environ) if self._most_of_client else None
        if client and self._in_hand_of[client] >= self._most_of_client and not environ["PATH_INFO"].endswith(CANCEL):
            WEB_SHED_OF_CLIENT().inc()
            return self._refuse(environ, start_response)
        if not self._admission.take(read=environ["REQUEST_METHOD"] in READS):
            WEB_SHED().inc()
            return self._refuse(environ, start_response)
        if client:
            self._in_hand_of[client] += 1
        try:
            return self._answer(environ, start_response)
        finally:
            self._admission.done()
            if client:
                self._in_hand_of[client] -= 1
                if not self._in_hand_of[client]:
                    del self._in_hand_of[client]

    @staticmethod
    def _refuse(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        refusal = REFUSALS[503]
        start_response(refusal.status, refusal.headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [refusal.body]

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """The whole answer, and the end of what Django does for it: its database connection is free again."""
        answer = self._application(environ, start_response)
        if "wsgi.file_wrapper" in environ and isinstance(answer, environ["wsgi.file_wrapper"]):
            return answer  # type: ignore[no-any-return]  # a static file, read as it is written
        if isinstance(answer, LiveResponse):
            if "gunicorn.socket" in environ:
                environ["gunicorn.socket"].go_live()
            return answer
        try:
            return list(answer)
        finally:
            answer.close()
