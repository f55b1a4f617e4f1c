"""The session with one venue: takes the lease of its reports, reads them, and has them written to their orders.

Any number of nodes may run a session for a venue. One of them holds the lease and reads; the others wait for it
(exchanges.leases). A session that loses its lease writes nothing more, and waits, too. What goes wrong with one venue
stays with its session: each has its own connection to the database and its own pauses.
"""

import asyncio
import logging
import os
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError

from exchanges import directory
from exchanges.leases import Checkpoint, Lease, LeaseLost
from exchanges.models import Venue as VenueRow
from exchanges.registry import open_venue
from exchanges.session import BackOff, Following
from exchanges.venue import ExecutionReport, StreamEnd, Venue, VenueError
from orders import metrics, reports
from orders.engine import DATABASE_RETRY_SECONDS, DatabaseThread
from orders.engine import disconnect as disconnect_database
from orders.working import Watch
from quiktrade.jobs import slots
from quiktrade.metrics.names import DATABASE_TROUBLE
from quiktrade.private_folder import private_folder

logger = logging.getLogger(__name__)

STANDBY_SECONDS = 1.0
"""A session that waits for the lease asks for it this often."""
TEND_SECONDS = 1.0
"""Reports that were kept lately are tried again this often."""
LATELY_SECONDS = 600.0
ROUND_SECONDS = 60.0
"""Orders without news for this long are compared with their venue, this often. All that were kept are tried again."""
RECONNECT_SECONDS = 10.0
"""After a reconnect a round of orders is compared at once, but not more often than this."""


class VenueSession:
    def __init__(self, row: VenueRow) -> None:
        self.code = row.code
        self._adapter, self._settings = row.adapter, row.settings
        self._database = DatabaseThread(f"reports-{row.code}")
        self._back_off = BackOff()
        self._at: Checkpoint | None = None
        self._waits = False
        self._reconnected = asyncio.Event()

    async def run(self) -> None:
        """Read until cancelled; then give the lease back."""
        with slots.take(f"reports-{self.code}") as slot:
            # The slot is free only if no other session of this node and venue runs: the one before this is dead.
            holder = settings.NODE_NAME if slot else f"{settings.NODE_NAME}/{os.getpid()}"
            lease_seconds = settings.SESSION_LEASE_SECONDS
            self._lease = Lease(self.code, holder, lease_seconds, predecessor_is_dead=slot is not None)
            try:
                while True:
                    seconds = await self._try()
                    await asyncio.sleep(seconds)
            finally:
                await self._give_back()
                await self._database.close()

    async def _try(self) -> float:
        """Serve until something goes wrong; returns after how many seconds to try again."""
        try:
            return await self._serve()
        except LeaseLost:
            logger.warning("Another session has taken over a venue's reports", extra=self._about("session.lost"))
            self._lease.own = None
            return random.uniform(0.5, 1.0) * STANDBY_SECONDS  # noqa: S311
        except (OperationalError, InterfaceError) as error:
            DATABASE_TROUBLE("session").inc()
            logger.error(
                "Database is away, trying again",
                extra={"event": "session.database_away", "venue": self.code, "error": str(error).strip()},
            )
            await self._database(disconnect_database)
            return DATABASE_RETRY_SECONDS
        except (VenueError, ValueError, LookupError) as error:
            if self._back_off.failures == 0:
                text = "A venue's reports cannot be read, trying again"
                logger.warning(text, extra={**self._about("session.trouble"), "error": str(error)})
        except Exception:
            logger.exception("The session of a venue failed", extra=self._about("session.failed"))
        await self._give_back()  # another node may reach the venue
        return self._back_off.next_seconds()

    async def _give_back(self) -> None:
        try:
            await self._database(self._lease.give_back)
        except (OperationalError, InterfaceError):
            pass  # it ends by itself

    async def _serve(self) -> float:
        if not await self._database(self._lease.is_free):
            return self._wait()
        venue = open_venue(self._adapter, self._settings)
        try:
            end = await venue.stream_end()
            if self._at is not None and self._at.stream != end.stream:
                await self._database(self._lease.give_back)
            taken = await self._database(self._lease.take, end.stream)
            if taken is None:
                return self._wait()
            self._waits = False
            self._at, new = taken
            await self._go_back(end)
            logger.info("Reading a venue's reports", extra=self._where("session.began", new_stream=new))
            return await self._follow(venue)
        finally:
            await venue.close()

    def _wait(self) -> float:
        if not self._waits:
            logger.info("Another session reads a venue's reports", extra=self._about("session.waits"))
            self._waits = True
        return random.uniform(0.5, 1.0) * STANDBY_SECONDS  # noqa: S311

    async def _go_back(self, end: StreamEnd) -> None:
        """Go on where the venue does, if its numbers have jumped back: it has lost reports, and reuses their numbers.

        What is then read twice counts once.
        """
        assert self._at is not None
        if end.last < self._at.next_sequence - 1:
            text = "A venue's reports have jumped back: it has lost some of them"
            logger.error(text, extra=self._where("session.jumped_back", last=end.last))
            self._at = await self._database(self._lease.set_back, self._at, end.last + 1)

    async def _follow(self, venue: Venue) -> float:
        assert self._at is not None
        following = Following(self.code, venue, self._at.stream, self._at.next_sequence)
        tending = asyncio.create_task(self._tend(venue))
        try:
            while True:
                before = self._at
                try:
                    await following.until_it_breaks(self._write, self._renew, idle_seconds=self._lease.seconds / 3)
                    await self._renew()
                    continue
                except VenueError as error:
                    logger.info("A venue's stream broke", extra=self._where("session.broke", error=str(error)))
                if self._at == before:
                    await asyncio.sleep(self._back_off.next_seconds())
                end = await venue.stream_end()
                if end.stream != self._at.stream or end.last < self._at.next_sequence - 1:
                    return 0.0
                await self._renew()
                self._reconnected.set()
        finally:
            tending.cancel()
            await asyncio.gather(tending, return_exceptions=True)

    async def _write(self, batch: Sequence[ExecutionReport]) -> int:
        self._at = await self._database(self._ingest, batch)
        self._back_off.failures = 0
        return self._at.next_sequence

    def _ingest(self, batch: Sequence[ExecutionReport]) -> Checkpoint:
        # In the thread of the database, so that what else is written there is fenced by where this one has come to.
        assert self._at is not None
        before = self._at.next_sequence
        self._at = reports.ingest(batch, self._at, lease=self._lease.seconds)
        metrics.REPORTS(self.code).inc(self._at.next_sequence - before)
        return self._at

    async def _renew(self) -> None:
        assert self._at is not None
        await self._database(self._lease.renew, self._at)
        self._back_off.failures = 0

    async def _tend(self, venue: Venue) -> None:
        """Compare orders with the venue, and try reports again that were kept. Nothing here stops the reading."""
        watch = Watch(self.code, venue, self._position, self._database, self._lease.seconds)
        clock, round_at, compared_at, begin = asyncio.get_running_loop().time, 0.0, 0.0, True
        while True:
            try:
                whole = clock() >= round_at
                seconds = None if whole else LATELY_SECONDS
                await self._database(self._apply_kept, seconds)
                if begin:
                    await watch.compare(everything=True)
                    begin, compared_at = False, clock()
                elif self._reconnected.is_set() and clock() - compared_at >= RECONNECT_SECONDS:
                    self._reconnected.clear()
                    await watch.compare()
                    compared_at = clock()
                elif whole:
                    await watch.compare(quiet_seconds=ROUND_SECONDS)
                if whole:
                    round_at = clock() + ROUND_SECONDS
            except (LeaseLost, OperationalError, InterfaceError, VenueError) as error:
                text = "Orders were not compared with their venue, trying again"
                logger.warning(text, extra={**self._about("session.not_compared"), "error": str(error).strip()})
                await asyncio.sleep(ROUND_SECONDS / 12)
            except Exception:
                logger.exception(
                    "The comparison of orders with their venue failed",
                    extra={"event": "session.comparison_failed", "venue": self.code},
                )
                await asyncio.sleep(ROUND_SECONDS / 12)
            await asyncio.sleep(TEND_SECONDS)

    def _position(self) -> Checkpoint:
        assert self._at is not None
        return self._at

    def _apply_kept(self, seconds: float | None) -> None:
        reports.apply_kept(self._position(), lease=self._lease.seconds, seconds=seconds)

    def _about(self, event: str) -> dict[str, Any]:
        return {"event": event, "venue": self.code, "node": settings.NODE_NAME}

    def _where(self, event: str, **more: Any) -> dict[str, Any]:
        at = self._position()
        return {**self._about(event), "stream": at.stream, "sequence": at.next_sequence, **more}


LOOK_SECONDS = 5.0
"""The venues are listed this often: one may be new, and the settings of one may have changed."""
STOP_SECONDS = 3.5


async def run_sessions(codes: Sequence[str], stop: asyncio.Event) -> bool:
    """Run a session for each venue that reports, or for those named, until `stop` is set.

    Returns whether all of them have ended in time. A venue that becomes known or is changed meanwhile gets a session.
    """
    database = DatabaseThread("venues")
    known: dict[str, tuple[VenueRow, bool]] = {}
    sessions: dict[str, tuple[VenueRow, asyncio.Task[None]]] = {}
    stopping = asyncio.create_task(stop.wait())
    try:
        while not stop.is_set():
            looking = asyncio.create_task(database(_reporting, codes, known))
            await asyncio.wait({looking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if looking.done():
                try:
                    await _adjust(sessions, looking.result())
                except (OperationalError, InterfaceError) as error:
                    logger.error(
                        "Database is away, trying again",
                        extra={"event": "session.venues_unknown", "error": str(error).strip()},
                    )
                    await database(disconnect_database)
            with suppress(OSError):
                (private_folder() / "sessions").touch()  # for a container's health check
            await asyncio.wait({stopping}, timeout=LOOK_SECONDS)
    finally:
        stopping.cancel()
    ending = [task for _, task in sessions.values()]
    for task in ending:
        task.cancel()
    if not ending:
        return True
    _, late = await asyncio.wait(ending, timeout=STOP_SECONDS)
    return not late


def _reporting(codes: Sequence[str], known: dict[str, tuple[VenueRow, bool]]) -> dict[str, VenueRow]:
    """The venues whose adapters report. A disabled venue takes no new orders, and reports on those that it has.

    `known` says of each venue, as it was, whether it reports: one whose adapter cannot be opened is logged once.
    """
    rows = VenueRow.objects.filter(code__in=codes) if codes else VenueRow.objects.all()
    for row in rows:
        if row.code not in known or not _is_alike(row, known[row.code][0]):
            capabilities = directory.capabilities_if_usable(row)
            known[row.code] = row, capabilities is not None and capabilities.reports
    return {row.code: row for row in rows if known[row.code][1]}


def _is_alike(row: VenueRow, before: VenueRow) -> bool:
    return (row.adapter, row.settings) == (before.adapter, before.settings)


async def _adjust(sessions: dict[str, tuple[VenueRow, asyncio.Task[None]]], rows: dict[str, VenueRow]) -> None:
    """Have a session for each of these venues, as it is now, and for no other."""
    for code, (before, task) in list(sessions.items()):
        row = rows.get(code)
        if row is None or not _is_alike(row, before) or task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=STOP_SECONDS)
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                logger.error(
                    "The session of a venue ended", exc_info=error, extra={"event": "session.died", "venue": code}
                )
            del sessions[code]
    for code, row in rows.items():
        if code not in sessions:
            sessions[code] = row, asyncio.create_task(VenueSession(row).run(), name=f"reports-{code}")
