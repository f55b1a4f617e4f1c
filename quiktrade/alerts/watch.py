"""Who looks for trouble: a thread of each web process, and a job of each job cluster, which take turns.

A job cluster that is dead cannot report itself, and a web process cannot be missed where nobody asks it. So whoever is
alive looks. A web process also sees what no row shows: that it refuses requests, and that the database is away, of
which it tells by itself.
"""

import logging
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import NamedTuple

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection
from django.utils import timezone

from quiktrade.alerts import incidents, notices
from quiktrade.alerts.channels import Channel
from quiktrade.alerts.judging import DATABASE_AWAY, Finding
from quiktrade.alerts.messages import OPENED, RESOLVED, Message
from quiktrade.alerts.system import DATABASE_TROUBLE, OVERLOADED, REPLICA_BEHIND, report
from quiktrade.database import replica
from quiktrade.database.connection import is_gone
from quiktrade.metrics import names

logger = logging.getLogger(__name__)

JOB = "quiktrade.alerts.watch.look"
TRY_SECONDS = 5.0
"""Each process asks this often whether it has the turn."""
SENT_SECONDS = 2.0
"""The job waits for so long until what is due is sent: its process may be replaced when it is done."""
AWAY_SECONDS = 30.0

Counts = Callable[[], tuple[int, int]]
"""How many requests this process has served, and how many it has refused."""


def look() -> None:
    """The job: judge if it is this process's turn, and have sent what is due. It waits for no channel that hangs."""
    try:
        threads = _look()
        end = time.monotonic() + SENT_SECONDS
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
    except DatabaseError as error:
        names.DATABASE_TROUBLE("alerts").inc()
        fields = {"event": "alerts.database_unusable", "error": str(error).strip()}
        logger.error("Nobody looks for trouble: the database cannot be used", extra=fields)
        connection.close()


def _look() -> list[threading.Thread]:
    """Returns the threads that send. Raises: django.db.Error."""
    turn = incidents.take_turn()
    if turn is not None:
        incidents.judge(turn, *incidents.look())
        notices.give_up()
    return notices.send_due()


def serve(counts: Counts | None = None) -> None:
    """Have a thread of this web process look for trouble, until the process ends."""
    threading.Thread(target=Watcher(counts).run, name="alerts", daemon=True).start()


class Watcher:
    def __init__(self, counts: Counts | None = None) -> None:
        self._local = Local(counts)
        self._outage = Outage()

    def run(self) -> None:
        while True:
            time.sleep(TRY_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311  so that processes do not ask all at once
            self.look()

    def look(self) -> None:
        try:
            _look()
            report(self._local.trouble())
            since = self._outage.is_over()
            if since is not None:
                incidents.record_outage(since, node=settings.NODE_NAME)
        except Exception as error:
            if isinstance(error, DatabaseError):
                names.DATABASE_TROUBLE("alerts").inc()
            if is_gone(error):
                self._outage.goes_on(str(error).strip())
            else:  # a database that answers is not away: a lock, or a table that is not there yet
                logger.exception("The watch failed in a way nobody foresaw", extra={"event": "alerts.watch_failed"})
        finally:
            with suppress(DatabaseError):
                connection.close()  # from a pool it goes back there


# ---- What only this process can see ----

WINDOW_SECONDS = 60.0
SHED_SHARE = 0.01
LASTING_SECONDS = 60.0
TROUBLES_SECONDS = 300.0
MOST_TROUBLES = 5


class _Sample(NamedTuple):
    at: float
    served: int
    refused: int
    troubles: float


class Local:
    """The trouble of this process, judged each time by how its counts have risen."""

    def __init__(self, counts: Counts | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._counts = counts or (lambda: (0, 0))
        self._clock = clock
        self._samples: deque[_Sample] = deque()
        self._shedding_since: float | None = None

    def trouble(self) -> list[Finding]:
        now = self._clock()
        self._samples.append(_Sample(now, *self._counts(), _troubles()))
        while now - self._samples[0].at > TROUBLES_SECONDS:
            self._samples.popleft()
        return [*self._overload(now), *self._database(), *_replica()]

    def _overload(self, now: float) -> list[Finding]:
        """Whether more than SHED_SHARE of the last minute's requests were refused, for more than a minute."""
        first = next(sample for sample in self._samples if now - sample.at <= WINDOW_SECONDS)
        last = self._samples[-1]
        refused, served = last.refused - first.refused, last.served - first.served
        share = refused / max(1, refused + served)
        if share <= SHED_SHARE:
            self._shedding_since = None
            return []
        if self._shedding_since is None:
            self._shedding_since = now
        if now - self._shedding_since <= LASTING_SECONDS:
            return []
        sentence = f"A web process of {settings.NODE_NAME} refuses {share:.1%} of its requests for overload."
        return [Finding(OVERLOADED, settings.NODE_NAME, sentence, "", share)]

    def _database(self) -> list[Finding]:
        times = self._samples[-1].troubles - self._samples[0].troubles
        if times <= MOST_TROUBLES:
            return []
        sentence = f"{settings.NODE_NAME} could not use the database {times:.0f} times within five minutes."
        return [Finding(DATABASE_TROUBLE, settings.NODE_NAME, sentence, "", times)]


def _troubles() -> float:
    """How often this process could not use the database, as it counts for the metrics."""
    samples = (metric.samples for where in ("web", "alerts") for metric in names.DATABASE_TROUBLE(where).collect())
    return sum(sample.value for found in samples for sample in found if sample.name.endswith("_total"))


def _replica() -> list[Finding]:
    """Whether lists are read from the primary although there is a replica. A read of nothing finds out."""
    replica.read(lambda: None)
    trouble = replica.trouble()
    if trouble is None or trouble.seconds < LASTING_SECONDS:
        return []
    sentence = f"The replica that DATABASE_REPLICA_URL names is not read: {trouble.why}"
    return [Finding(REPLICA_BEHIND, "reads", sentence, "", trouble.seconds)]


# ---- A database that is away ----


class Outage:
    """An outage of the database as this process sees it: told after AWAY_SECONDS, once, and once when it is over."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._began_at: datetime | None = None
        self._over: threading.Event | None = None
        """Set when it is over. None: nobody was told of it."""

    def goes_on(self, error: str) -> None:
        now = self._clock()
        if self._since is None:
            self._since, self._began_at = now, timezone.now()
        if self._over is not None or now - self._since < AWAY_SECONDS:
            return
        assert self._began_at is not None
        logger.critical("The database is away", extra={"event": "alerts.database_away", "error": error})
        self._over = threading.Event()
        story = _Story(self._began_at, str(uuid.uuid4()))
        for channel in settings.ALERTS:
            work = partial(story.tell, channel, self._over)
            notices.start(work, name=f"outage-{channel.kind}", otherwise=lambda: None)

    def is_over(self) -> datetime | None:
        """Since when the database was away, if people were told that it is."""
        began_at, told = self._began_at, self._over
        self._since = self._began_at = self._over = None
        if told is None:
            return None
        told.set()
        logger.warning("The database is back", extra={"event": "alerts.database_back", "since": began_at})
        return began_at


class _Story(NamedTuple):
    began_at: datetime
    id: str

    def tell(self, channel: Channel, over: threading.Event) -> None:
        """Tell a channel that the database is away, and when it is back."""
        self._try(channel, self._message(OPENED), until=over)
        over.wait()
        self._try(channel, self._message(RESOLVED), until=threading.Event())

    def _message(self, what: str) -> Message:
        node, now = settings.NODE_NAME, timezone.now()
        sentence = f"{node} could not use the database for {AWAY_SECONDS:.0f} s. Orders are refused with 503."
        if what == RESOLVED:
            sentence = f"{node} could not use the database."
        return Message(
            id=f"outage_{self.id}_{what}",
            what=what,
            incident=self.id,  # of this outage alone: mail with the id of an earlier one may be dropped
            dedup_key=f"{DATABASE_AWAY.name}-{node}",  # the processes of a node tell a pager of one incident
            kind=DATABASE_AWAY.name,
            title=DATABASE_AWAY.title,
            subject=node,
            severity=DATABASE_AWAY.severity,
            sentence=sentence,
            advice="Look at /readyz and at the database's own log. When it is back, everything goes on by itself.",
            at=now,
            opened_at=self.began_at,
            resolved_at=now if what == RESOLVED else None,
        )

    def _try(self, channel: Channel, message: Message, *, until: threading.Event) -> None:
        for wait in (*notices.RETRY_SECONDS, None):
            error = notices.attempt(channel, message)
            if not error or wait is None or until.wait(wait):
                break
            fields = {"event": "alerts.outage_not_sent", "channel": channel.name, "error": error}
            logger.warning("Alert of the database not sent, trying again", extra=fields)
