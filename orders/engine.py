"""Placement in three steps, called beats: claim, send, record.

    beat 1  claim due requests to cancel, to replace, and orders under a lease; committed before anything is sent
    beat 2  send them, hundreds at once, with no transaction open
    beat 3  record what came of them, many in one statement

Cancels come before replaces, and these before orders, and a part of what may be in flight is kept for cancels.

One engine serves all venues in one event loop. Each venue has its own limit of requests in flight, so a slow or dead
venue reaches its own limit and delays no other. The database is used from two threads, one that claims and one that
records, so that neither waits for the other and the loop waits for neither.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import psycopg
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connection

from exchanges.circuit import Permit
from exchanges.registry import open_venue
from exchanges.venue import (
    CancelRequest,
    Capabilities,
    NewOrder,
    NotSent,
    OutcomeUnknown,
    ReplaceRequest,
    Venue,
    VenueError,
    VenueTrouble,
)
from orders import metrics, placement, request_verdicts, selectors, verdicts
from orders.lifecycle import Event, MovedOrder, Step
from orders.placement import Attempt, RequestAttempt
from orders.request_verdicts import Verdict
from orders.requests import ClaimedRequest
from orders.selectors import VenueToServe
from quiktrade import crash
from quiktrade.database.connection import is_gone
from quiktrade.jobs import doorbell
from quiktrade.metrics.names import DATABASE_TROUBLE
from quiktrade.texts import storable
from quiktrade.tracing import spans

logger = logging.getLogger(__name__)
T = TypeVar("T")

ACTOR = "system:placement"
LARGEST_CLAIM = 256
GATHER_SECONDS = 0.004
"""When many requests are in flight, their outcomes are gathered for this long and written together."""
BUSY = 8
"""With more requests in flight than this, gathering outcomes is worth the wait."""
DATABASE_RETRY_SECONDS = 0.5

HELD_BACK = NotSent("held_back", "The venue said that it takes nothing now.", trouble=VenueTrouble.PAUSED)
"""The error of an order that was claimed before the venue said that it takes nothing."""


def clock() -> float:
    """Seconds on a clock that also runs while the machine sleeps, because leases do."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass
class ServedVenue:
    """One venue while it is being served: its adapter and its requests in flight."""

    row: VenueToServe
    venue: Venue
    in_flight: int = 0
    requests_wait: bool = False
    """Requests were due at the last claim, and perhaps more than there was room for."""
    closed_at: float = -math.inf
    """Orders claimed before this time are not sent: the venue has since said that it takes nothing, and its row says
    so. It is infinite until that is written; nothing is claimed meanwhile."""
    wants_more: bool = False
    """The last claim may have left orders behind because too many requests were in flight."""
    capabilities: Capabilities = field(init=False)

    def __post_init__(self) -> None:
        self.capabilities = self.venue.capabilities

    @property
    def room(self) -> int:
        """For orders and replaces: a part of the venue's limit is kept for cancels."""
        return self._size - self._reserve - self.in_flight

    @property
    def room_for_cancels(self) -> int:
        return self._size - self.in_flight

    @property
    def worth_a_claim(self) -> bool:
        """Whether there is room for a good part of a claim: it is refilled in chunks, not order by order."""
        return self.room >= max(1, min(LARGEST_CLAIM, self._size - self._reserve) // 4)

    @property
    def is_closed(self) -> bool:
        return self.closed_at == math.inf

    @property
    def _reserve(self) -> int:
        return placement.kept_for_cancels(self._size) if self.capabilities.cancels else 0

    @property
    def _size(self) -> int:
        """The row's limit is for all nodes together; what an adapter can have under way at once is this node's."""
        return min(self.row.max_in_flight, self.capabilities.in_flight)


class DatabaseThread:
    """Calls functions in a thread with its own Django connection, so that an event loop can use the database."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def __call__(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(*args, **kwargs))

    async def until_done(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call the function, and repeat the call while the database is away."""
        while True:
            try:
                return await self(function, *args, **kwargs)
            except (OperationalError, InterfaceError) as error:
                DATABASE_TROUBLE("placement").inc()
                logger.error(
                    "Database is away, trying again",
                    extra={"event": "placement.database_away", "error": str(error).strip()},
                )
                await self(disconnect)
                await asyncio.sleep(DATABASE_RETRY_SECONDS)

    async def close(self) -> None:
        await self(disconnect)
        self._thread.shutdown()


# Django's `connection` is the connection of the current thread. These functions must run in the DatabaseThread whose
# connection they mean.
def _connect() -> None:
    connection.ensure_connection()


def disconnect() -> None:
    connection.close()


class Engine:
    """Places due orders. A process has one engine; `run()` serves until no order is left or its time is up."""

    def __init__(self) -> None:
        self.claims = DatabaseThread("claims")
        self.records = DatabaseThread("records")
        self._served: dict[str, ServedVenue] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._attempts: list[Attempt] = []
        self._request_attempts: list[RequestAttempt] = []
        self._wake = asyncio.Event()
        self._writing = False
        self._limited = False  # a claim got less than it wanted, perhaps because outcomes are not recorded yet
        self._outcome = asyncio.Event()
        self._over = False
        self._recorder: asyncio.Task[None] | None = None
        self._recorded: Callable[[list[MovedOrder]], None] = lambda moved: None

    async def connect(self) -> None:
        """Connect to the database ahead of the first run."""
        await self.claims(_connect)
        await self.records(_connect)

    async def close(self) -> None:
        """Close the database connections. The engine cannot run again."""
        await self.claims.close()
        await self.records.close()

    async def run(
        self,
        *,
        seconds: float,
        linger: float = 0.0,
        stopping: Callable[[], bool] = lambda: False,
        hand_over: Callable[[], None] = lambda: None,
        recorded: Callable[[list[MovedOrder]], None] = lambda moved: None,
    ) -> None:
        """Place due orders for `seconds` at most, and until none has been due for `linger` seconds.

        `hand_over` is called when the engine will claim no more, while its last requests are still in flight: another
        process may start to claim then. `recorded` is called with the orders of every batch that was written.

        Raises the error that stopped it from claiming or recording, after the requests in flight have ended. An order
        whose outcome was not written becomes unconfirmed when its lease expires.
        """
        self._recorded, self._over, self._writing = recorded, False, False
        self._attempts.clear()
        self._request_attempts.clear()
        await self.claims(close_old_connections)
        await self.records(close_old_connections)
        self._recorder = asyncio.create_task(self._record())
        self._recorder.add_done_callback(lambda _: self._wake.set())
        listener = asyncio.create_task(self._listen()) if linger else None
        try:
            await self._claim(time.monotonic() + seconds, linger, stopping)
        finally:
            hand_over()
            if listener:
                listener.cancel()
            if self._calls:
                await asyncio.wait(self._calls)
            self._over = True
            self._outcome.set()
            try:
                await self._recorder
            finally:
                await self._close_adapters()

    async def _close_adapters(self) -> None:
        for code, served in self._served.items():
            try:
                await served.venue.close()
            except Exception:
                logger.exception(
                    "Adapter failed to close", extra={"event": "placement.adapter_not_closed", "venue": code}
                )
        self._served.clear()

    # ---- beat 1 ----

    async def _claim(self, end: float, linger: float, stopping: Callable[[], bool]) -> None:
        idle_since: float | None = None
        assert self._recorder is not None
        while (now := time.monotonic()) < end and not stopping():
            self._wake.clear()
            if self._recorder.done():
                return  # its error ends the run: no order may be sent if its outcome will not be written
            if await self._claim_once():
                idle_since = None
                continue
            if self._calls or self._attempts or self._request_attempts or self._writing:
                idle_since = None
            elif idle_since is None:
                idle_since = now
            elif now - idle_since >= linger:
                return
            # The doorbell and answers that make room wake this loop. The time-out is for back-offs and `stopping`.
            wait = min(0.25, linger) if idle_since is not None else 0.25
            try:
                await asyncio.wait_for(self._wake.wait(), wait)
            except TimeoutError:
                pass

    async def _claim_once(self) -> int:
        """Claim for every venue with due work and room, and start sending. Returns how much was claimed."""
        rooms = {}
        for code, served in self._served.items():
            rooms[code] = NO_ROOM if served.is_closed else Room.of(served)
            served.wants_more = not rooms[code].orders
        count = 0
        for claimed in await self.claims.until_done(_claim_due, rooms):
            if claimed.row.code in rooms:
                count += self._send_claimed(claimed)
            elif await self._open(claimed.row):
                self._wake.set()  # it has room now: claim again at once
        return count

    async def _open(self, row: VenueToServe) -> bool:
        """Open a venue's adapter for this run. Returns whether that succeeded."""
        try:
            self._served[row.code] = ServedVenue(row, open_venue(row.adapter, row.settings))
        except Exception as error:  # an adapter that fails on its settings must not affect other venues
            await self.claims.until_done(placement.shut_out, row.code, error=str(error))
            return False
        return True

    def _send_claimed(self, claimed: "VenueClaim") -> int:
        served, claimed_at = self._served[claimed.row.code], clock()
        served.row = claimed.row  # its limit may have changed
        orders, requests, permit = claimed.claim.orders, claimed.claim.requests, claimed.claim.permit
        count = len(orders) + len(requests)
        if orders:
            metrics.CLAIMED(claimed.row.code).inc(len(orders))
        if count:
            crash.point("after_claim")
        for request in requests:
            self._start(served, self._send_request(served, request, permit, claimed.asked_at, claimed_at))
        for order in orders:
            self._start(served, self._send(served, order, permit, claimed.asked_at, claimed_at))
        served.requests_wait = claimed.row.requests_due and not requests
        served.wants_more = count >= claimed.wanted
        self._limited = self._limited or not served.wants_more
        return count

    def _start(self, served: ServedVenue, sending: Coroutine[Any, Any, None]) -> None:
        served.in_flight += 1
        call = asyncio.create_task(sending)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    # ---- beat 2 ----

    async def _send(
        self, served: ServedVenue, order: MovedOrder, permit: Permit, asked_at: float, claimed_at: float
    ) -> None:
        try:
            with spans.child("place at venue", order.traceparent, call=True) as span:
                step, error = await self._attempt(served, order, asked_at, claimed_at)
                if span is not spans.NOTHING:
                    _tell(span, order.id, order, step.event, error)
        finally:
            self._end(served)
        answered, error = self._said_of_venue(served, error)
        attempt = Attempt(step, served.row.code, answered, permit, order.attempt, error, order.traceparent)
        self._attempts.append(attempt)
        self._outcome.set()

    async def _send_request(
        self, served: ServedVenue, request: ClaimedRequest, permit: Permit, asked_at: float, claimed_at: float
    ) -> None:
        try:
            with spans.linked(f"{request.kind} at venue", [request.traceparent], call=True) as span:
                verdict, error = await self._attempt_request(served, request, asked_at, claimed_at)
                if span is not spans.NOTHING:
                    _tell(span, request.order_id, request, "not_done" if error else "done", error)
        finally:
            self._end(served)
        answered, error = self._said_of_venue(served, error)
        self._request_attempts.append(RequestAttempt(verdict, served.row.code, answered, permit, error))
        self._outcome.set()

    def _end(self, served: ServedVenue) -> None:
        served.in_flight -= 1
        if served.requests_wait or (served.wants_more and served.worth_a_claim):
            self._wake.set()

    @staticmethod
    def _said_of_venue(served: ServedVenue, error: VenueError | None) -> tuple[bool | None, VenueError | None]:
        """Whether the venue answered, None if nothing was sent to it; and the error, if it says something about it."""
        if error is HELD_BACK:
            return None, None
        if error and error.trouble:
            served.closed_at = math.inf
        return error is None or error.answered, error

    async def _attempt(
        self, served: ServedVenue, order: MovedOrder, asked_at: float, claimed_at: float
    ) -> tuple[Step, VenueError | None]:
        """Send once. Returns what that means for the order, and what kept it from being acknowledged.

        The lease began between `asked_at` and `claimed_at`. The earlier time is safe for deciding whether to send, the
        later one for deciding how long the request may be valid at the venue.
        """

        async def place() -> str:
            return (await served.venue.place(new_order(order))).venue_order_id

        started = clock()
        answer = await self._call(served, place, asked_at, order_id=order.id)
        latency = _milliseconds_since(started)
        if isinstance(answer, VenueError):
            left = settings.PLACEMENT_LEASE_SECONDS - (clock() - claimed_at)
            capabilities = served.capabilities
            return verdicts.failed_step(order, answer, capabilities, lease_left=left, latency_ms=latency), answer
        # Its age is as of the claim.
        waited = order.age_seconds + started - claimed_at
        metrics.count_placed(served.row.code, waited=waited, latency=latency / 1000)
        step = Step(
            order_id=order.id,
            event=Event.ACKNOWLEDGED,
            detail={"latency_ms": latency},
            venue_order_id=answer,
        )
        return step, None

    async def _attempt_request(
        self, served: ServedVenue, request: ClaimedRequest, asked_at: float, claimed_at: float
    ) -> tuple[Verdict, VenueError | None]:
        """Send once. Returns what that means for the request, and what kept it from being done."""
        venue = served.venue
        answer = await self._call(
            served,
            lambda: venue.cancel(as_cancel(request)) if request.terms is None else venue.replace(as_replace(request)),
            asked_at,
            request_id=request.id,
        )
        left = settings.PLACEMENT_LEASE_SECONDS - (clock() - claimed_at)
        verdict = request_verdicts.after_attempt(request, answer, served.capabilities, lease_left=left)
        return verdict, answer if isinstance(answer, VenueError) else None

    @staticmethod
    async def _call(
        served: ServedVenue, call: Callable[[], Awaitable[T]], asked_at: float, **about: Any
    ) -> T | VenueError:
        """Make a call to a venue whose lease began at `asked_at` at the earliest. An error is returned."""
        capabilities, lease = served.capabilities, settings.PLACEMENT_LEASE_SECONDS
        started = clock()
        if asked_at < served.closed_at:
            return HELD_BACK
        # Twice the deadline, because a call may wait one more deadline for a connection.
        if started - asked_at > lease - 2 * capabilities.deadline_seconds:
            # This process was suspended. The fence makes a late answer harmless, but not sending late is better.
            return NotSent("late", "The process was held up; the lease is too short.", answered=True)
        crash.point("after_mark")
        answer: T | VenueError
        try:
            answer = await call()
        except VenueError as raised:
            answer = raised
        except Exception as raised:
            logger.exception(
                "Adapter failed", extra={"event": "placement.adapter_failed", "venue": served.row.code, **about}
            )
            answer = OutcomeUnknown("adapter_error", repr(raised))
        else:
            crash.point("after_reply")
        answered = "yes" if not isinstance(answer, VenueError) or answer.answered else "no"
        metrics.VENUE_SECONDS(served.row.code, answered).observe(clock() - started)
        return answer

    # ---- beat 3 ----

    async def _record(self) -> None:
        """Write outcomes as they arrive, until the run is over and none is left."""
        while self._attempts or self._request_attempts or not self._over:
            await self._outcome.wait()
            if len(self._calls) > BUSY:
                await asyncio.sleep(GATHER_SECONDS)
            self._outcome.clear()
            attempts, self._attempts = self._attempts, []
            of_requests, self._request_attempts = self._request_attempts, []
            if attempts or of_requests:
                crash.point("before_record")
                self._writing = True
                if of_requests:
                    await self._write_requests(of_requests)
                if attempts:
                    self._recorded(await self._write(attempts))
                self._writing = False
                crash.point("after_record")
                self._reopen([*attempts, *of_requests])
                if self._limited:
                    self._limited = False
                    self._wake.set()

    async def _write_requests(self, attempts: list[RequestAttempt]) -> None:
        """Write outcomes together. One that cannot be written is found by bisection: its request's lease runs out."""
        try:
            await self.records.until_done(placement.record_requests, attempts, actor=ACTOR)
        except Exception:
            if len(attempts) == 1:
                fields = {"event": "request.unwritable", "venue": attempts[0].venue, "verdict": attempts[0].verdict}
                logger.exception("An outcome of a request cannot be written: its lease runs out", extra=fields)
                return
            half = len(attempts) // 2
            await self._write_requests(attempts[:half])
            await self._write_requests(attempts[half:])

    async def _write(self, attempts: list[Attempt]) -> list[MovedOrder]:
        """Write outcomes together. One that cannot be written is found by bisection and blocks no other."""
        try:
            return await self.records.until_done(placement.record_attempts, attempts, actor=ACTOR)
        except Exception as error:
            if len(attempts) == 1:
                return await self._write_as_unknown(attempts[0], error)
            half = len(attempts) // 2
            return await self._write(attempts[:half]) + await self._write(attempts[half:])

    async def _write_as_unknown(self, attempt: Attempt, error: Exception) -> list[MovedOrder]:
        """Record an outcome that cannot be written as unknown: its text is kept, and the venue is asked again."""
        step, capabilities = attempt.step, self._served[attempt.venue].capabilities
        said = f"{step.venue_order_id} {step.reason}".strip()
        unknown = Step(
            order_id=step.order_id,
            event=Event.OUTCOME_UNKNOWN,
            attempt=attempt.number,
            reason=storable(f"unwritable: {step.event}: {said}"),
            detail={"code": "unwritable", "event": step.event, "error": storable(str(error).strip())},
            delay=verdicts.look_up_delay(capabilities, lease_left=settings.PLACEMENT_LEASE_SECONDS),
        )
        fields = {"event": "order.unwritable", "venue": attempt.venue, "order_id": step.order_id}
        logger.error(
            "An outcome cannot be written", extra={**fields, "outcome": step.event, "error": str(error).strip()}
        )
        written = replace(attempt, step=unknown, error=None)
        try:
            return await self.records.until_done(placement.record_attempts, [written], actor=ACTOR)
        except Exception:
            text = "An outcome cannot even be written as unknown: its lease runs out"
            logger.exception(text, extra={**fields, "event": "order.unwritten"})
            return []

    def _reopen(self, attempts: Sequence[Attempt | RequestAttempt]) -> None:
        """Let the rows decide again whether orders may be sent to a venue that took nothing."""
        for attempt in attempts:
            if attempt.error and attempt.error.trouble:
                self._served[attempt.venue].closed_at = clock()
                self._wake.set()

    async def _listen(self) -> None:
        while True:
            try:
                await doorbell.listen(self._wake.set)
            except psycopg.Error as error:
                logger.warning(
                    "Doorbell is not heard, trying again",
                    extra={"event": "doorbell.not_heard", "error": str(error).strip()},
                )
            await asyncio.sleep(DATABASE_RETRY_SECONDS)


@dataclass(frozen=True, slots=True)
class VenueClaim:
    """The result of one claim for one venue."""

    row: VenueToServe
    wanted: int
    asked_at: float
    """A time before the leases began. If the claim was repeated, it belongs to the repetition that succeeded."""
    claim: placement.Claim


class Room(NamedTuple):
    """How much may be claimed for a venue: orders and replaces, and cancels before them."""

    orders: int
    cancels: int
    reserve: bool = False

    @classmethod
    def of(cls, served: ServedVenue) -> "Room":
        orders = min(served.room, LARGEST_CLAIM) if served.worth_a_claim else 0
        return cls(orders, min(served.room_for_cancels, LARGEST_CLAIM), served.capabilities.cancels)


NO_ROOM = Room(0, 0)


def _tell(
    span: spans.Span, order_id: UUID, sent: MovedOrder | ClaimedRequest, event: str, error: VenueError | None
) -> None:
    """Say in a span what came of an attempt."""
    span.note({"order.id": str(order_id), "venue": sent.venue_id, "attempt": sent.attempt, "event": event})
    if error is not None:
        span.fail(type(error).__name__)


def _claim_due(rooms: Mapping[str, Room]) -> list[VenueClaim]:
    """Claim for the venues that have due work and room, in one call on the database thread.

    A venue that is not among `rooms` is only reported: it has yet to be opened.
    """
    claims = []
    for row in selectors.venues_with_due_work():
        room, asked_at = rooms.get(row.code), clock()
        if room is None:
            claims.append(VenueClaim(row, 0, asked_at, placement.NO_CLAIM))
            continue
        cancels = room.cancels if row.requests_due else 0
        if room.orders or cancels:
            try:
                claim = placement.claim_orders(
                    row.code, wanted=room.orders, cancels=cancels, reserve=room.reserve, actor=ACTOR
                )
            except Exception as error:
                away = is_gone(error)
                if away and not claims:
                    raise
                logger.error(
                    "Claim failed",
                    extra={"event": "placement.claim_failed", "venue": row.code, "error": str(error).strip()},
                )
                if away:  # what was claimed is sent all the same; the next visit finds the database as it is then
                    break
                continue
            claims.append(VenueClaim(row, room.orders, asked_at, claim))
        elif row.requests_due:
            claims.append(VenueClaim(row, 0, asked_at, placement.NO_CLAIM))
    return claims


def new_order(order: MovedOrder) -> NewOrder:
    """The order as the venue gets it. Its `client_order_id` is our id: a client's own is unique only for that
    client."""
    assert order.lease_expires_at is not None, "only a claimed order is sent"
    return NewOrder(
        **order.terms(),
        client_order_id=str(order.id),
        valid_until=order.lease_expires_at,
    )


def as_cancel(request: ClaimedRequest) -> CancelRequest:
    """The request as the venue gets it, the same on every attempt but for the time until which it is valid."""
    return CancelRequest(
        client_order_id=str(request.id),
        original_client_order_id=str(request.original_id),
        order_id=str(request.order_id),
        venue_order_id=request.venue_order_id,
        valid_until=request.lease_expires_at,
    )


def as_replace(request: ClaimedRequest) -> ReplaceRequest:
    """As `as_cancel`."""
    assert request.terms is not None, "a replace has its terms since its first claim"
    return ReplaceRequest(
        client_order_id=str(request.id),
        original_client_order_id=str(request.original_id),
        order_id=str(request.order_id),
        venue_order_id=request.venue_order_id,
        valid_until=request.lease_expires_at,
        **asdict(request.terms),
    )


def _milliseconds_since(started: float) -> float:
    return round((clock() - started) * 1000, 2)
