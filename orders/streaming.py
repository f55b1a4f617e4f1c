"""Tells clients at once what happens to their orders: one reader of the feed for all streams of a process.

The reader, the tail, runs as long as there are streams. It is woken by the ring of whoever writes events, looks again
for a while after that, because the horizon may pass what was written later than the ring comes, and looks now and then
anyhow. It makes each event's frame once, for all streams of its owner.

A stream is registered in the same step in which the tail's place is noted. What a client missed is read up to that
place, and what the tail reads behind it is kept meanwhile: so there is no gap between the two, and no overlap.
"""

import logging
import select
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import psycopg
from django.conf import settings
from django.db import OperationalError, connection

from orders import feed
from orders.feed import Cursor, FeedEvent, Horizon
from quiktrade.api.renderers import FastJSONRenderer
from quiktrade.errors import Refusal
from quiktrade.jobs import doorbell
from quiktrade.web.live import Line, at_stop

logger = logging.getLogger(__name__)

MOST_OF_A_CLIENT = 20
MOST_UNSENT = 1_000_000
"""Bytes that one client has yet to read. Then it is cut off, and reads from the feed where it was when it is back."""
MOST_UNSENT_OF_ALL = 64 * 1024 * 1024
"""Likewise in one process; then those are cut off that have more than `LITTLE` to read."""
LITTLE = 64 * 1024
"""Bytes that are sent in one piece."""
START_SECONDS = 3.0
"""How long a client waits for the tail to start."""

PAGE = 2000
PAUSE_SECONDS = 0.01
"""Between two looks: what comes meanwhile is read together."""
RESTLESS_SECONDS = 0.05
"""After a ring the tail looks again every `PAUSE_SECONDS` for this long."""
LOOK_SECONDS = 0.5
"""The longest time between two looks."""
RETRY_SECONDS = 1.0
GONE_SECONDS = 2.0
"""After this long at the latest a stream whose client has hung up gives its memory back."""


class TooManyStreams(Refusal):
    """This client has as many as one may have."""

    status = 429
    kind = "too-many-streams"
    retry_seconds = 5


class NoRoom(Refusal):
    """The process has as many as it can serve, or is being stopped."""

    status = 503
    kind = "no-stream"
    retry_seconds = 1


def frame(event: FeedEvent, cluster: str) -> bytes:
    told = feed.for_client(event, cluster)
    return b"id: %b\nevent: order\ndata: %b\n\n" % (told["cursor"].encode(), FastJSONRenderer().render(told))


class Stream:
    """What one client has yet to be told. `start` is the place behind which the tail tells it, None until there is one.

    `seen` is the client's own place: it may have been told by another process, whose tail was further.

    Frames wait here for `take`. While its caller waits for them, the tail sends them itself on the client's `line`:
    that costs a tenth of waking the caller.
    """

    def __init__(self, owner_id: int, seen: Cursor | None, line: Line | None) -> None:
        self.owner_id = owner_id
        self.seen = (seen.stamp, seen.id) if seen else (0, 0)
        self.start: Cursor | None = None
        self.over = ""
        """Why it is over."""
        self.unsent = 0
        self._frames: deque[bytes] = deque()
        self._taken = 0
        self._awake = threading.Event()
        self._waiting = self._nudged = False
        self._line = line

    def begin(self, place: Cursor) -> None:
        self.start = place
        self._awake.set()

    def put(self, frame: bytes) -> None:
        self._frames.append(frame)
        self.unsent += len(frame)

    def flush(self) -> None:
        """Send what was put, or have it sent."""
        if self._waiting and self._line is not None and not self.over:
            left = self._line.push(b"".join(self._frames))
            if left is not None:
                self._frames.clear()
                self.unsent = 0
                self._nudged = left > 0
                if left == 0:
                    return
        self._awake.set()

    def end(self, why: str, *, cut: bool = False) -> None:
        self.over = self.over or why
        self._awake.set()
        if cut:
            self._frames.clear()
            if self._line is not None:
                self._line.cut()

    @property
    def hung_up(self) -> bool:
        return self._line is not None and self._line.hung_up()

    def take(self, seconds: float) -> bytes:
        """The next frames, after what was taken before has been sent; empty if none came in this time."""
        self.unsent -= self._taken
        self._taken = 0
        end = time.monotonic() + seconds
        self._waiting = True
        while not (self._frames or self.over or self._nudged):
            self._awake.clear()
            if self._frames or self.over or not self._awake.wait(max(0.0, end - time.monotonic())):
                break
        self._waiting = self._nudged = False
        part: list[bytes] = []
        while self._frames and self._taken < LITTLE:
            part.append(self._frames.popleft())
            self._taken += len(part[-1])
        return b"".join(part)

    def wait_for_start(self, seconds: float) -> bool:
        self._awake.wait(seconds)
        return self.start is not None


class Hub:
    """The streams of a process, and their tail."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._streams: dict[int, dict[Stream, None]] = {}
        self._count = 0
        self._place: Cursor | None = None
        self._tail: threading.Thread | None = None
        self._stopped = False

    def open(self, owner_id: int, seen: Cursor | None = None, line: Line | None = None) -> Stream:
        """Register a stream. Raises: TooManyStreams, NoRoom; OperationalError, if the feed cannot be read."""
        stream = Stream(owner_id, seen, line)
        with self._lock:
            self._admit(owner_id)
            self._streams.setdefault(owner_id, {})[stream] = None
            self._count += 1
            stream.start = self._place
            if self._tail is None:
                self._tail = threading.Thread(target=self._follow, name="feed", daemon=True)
                self._tail.start()
        if stream.start is None and not stream.wait_for_start(START_SECONDS):
            self.close(stream)
            raise OperationalError("The feed of events cannot be read at this moment.")
        return stream

    def close(self, stream: Stream) -> None:
        """Forget a stream. The tail ends when there is none left."""
        with self._lock:
            self._forget(stream)

    def stop(self) -> None:
        """End all streams, and open no more."""
        with self._lock:
            self._stopped = True
            self._end_all("the server stops")

    def _admit(self, owner_id: int) -> None:
        if self._stopped:
            raise NoRoom("This server is being stopped. Connect again, and another one answers.")
        own = self._streams.get(owner_id, {})
        if len(own) >= MOST_OF_A_CLIENT or self._count >= self._most:
            self._forget_gone()
        if len(own) >= MOST_OF_A_CLIENT:
            raise TooManyStreams(f"You follow your orders on {len(own)} streams, and more are not served. Close one.")
        if self._count >= self._most:
            raise NoRoom(
                "No more streams can be served at this moment. Connect again later, or ask GET /api/v1/orders/events."
            )

    def _forget_gone(self) -> None:
        for stream in [each for streams in self._streams.values() for each in streams if each.hung_up]:
            stream.end("the client is gone")
            self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        own = self._streams.get(stream.owner_id, {})
        if stream in own:
            del own[stream]
            self._count -= 1
            if not own:
                del self._streams[stream.owner_id]

    def _end_all(self, why: str) -> None:
        for own in self._streams.values():
            for stream in own:
                stream.end(why)

    # ---- The tail ----

    def _follow(self) -> None:
        """Run until there are no streams. A lost connection is made again, and the place is kept."""
        while self._goes_on():
            try:
                with self._connect() as line:
                    line.execute(f"LISTEN {settings.FEED_CHANNEL}")
                    self._follow_on(line)
            except (psycopg.Error, OSError) as error:
                logger.warning(
                    "Feed not read: it is tried again", extra={"event": "feed.unreadable", "error": str(error).strip()}
                )
                time.sleep(RETRY_SECONDS)
            except Exception:
                logger.exception("Feed not read: it is tried again", extra={"event": "feed.failed"})
                time.sleep(RETRY_SECONDS)

    @staticmethod
    def _connect() -> Any:
        database: Any = connection  # as Django connects, with its bounds on every wait
        return database.Database.connect(**doorbell.connection_parameters(), autocommit=True)

    def _goes_on(self) -> bool:
        with self._lock:
            if self._count == 0:
                self._tail = self._place = None
            return self._count > 0

    def _follow_on(self, line: Any) -> None:
        rings: list[Any] = []
        line.add_notify_handler(rings.append)  # one may come with the answer to a statement
        restless_until = 0.0
        look_for_gone = time.monotonic() + GONE_SECONDS
        while self._goes_on():
            if time.monotonic() >= look_for_gone:
                with self._lock:
                    self._forget_gone()
                look_for_gone = time.monotonic() + GONE_SECONDS
            events, horizon = feed.follow(line, self._place, limit=PAGE)
            self._tell(events, horizon)
            if len(events) == PAGE:
                continue
            if not rings:
                restless = time.monotonic() < restless_until
                select.select([line], [], [], PAUSE_SECONDS if restless else LOOK_SECONDS)
                line.pgconn.consume_input()
                while ring := line.pgconn.notifies():
                    rings.append(ring)
            if rings:
                rings.clear()
                restless_until = time.monotonic() + RESTLESS_SECONDS
                time.sleep(PAUSE_SECONDS)

    def _tell(self, events: list[FeedEvent], horizon: Horizon) -> None:
        with self._lock:
            before = self._place
            if before is None:
                self._place = horizon.cursor
                for own in self._streams.values():
                    for stream in own:
                        if stream.start is None:
                            stream.begin(self._place)
                return
            if before.cluster != horizon.cluster or before > horizon.cursor:
                logger.error("The database is another one: streams begin again", extra={"event": "feed.other_database"})
                self._place = horizon.cursor
                self._end_all("the database is another one")
                return
            told: dict[Stream, None] = {}
            for event in events:
                if following := self._streams.get(event.owner_id):
                    self._put(following, event, horizon.cluster)
                    told |= following
            for stream in told:
                stream.flush()
            self._place = feed.next_cursor(events, horizon, limit=PAGE)

    def _put(self, own: dict[Stream, None], event: FeedEvent, cluster: str) -> None:
        made = frame(event, cluster)
        for stream in own:
            if (event.stamp, event.id) <= stream.seen or stream.over:
                continue
            stream.put(made)
            if stream.unsent > MOST_UNSENT or (stream.unsent > LITTLE and self._unsent() > MOST_UNSENT_OF_ALL):
                stream.end("the client reads too slowly", cut=True)

    def _unsent(self) -> int:
        return sum(stream.unsent for own in self._streams.values() for stream in own)


hub = Hub(settings.WEB_STREAMS)
at_stop(hub.stop)


def missed(stream: Stream, after: Cursor, *, limit: int = 500) -> Iterator[list[FeedEvent]]:
    """Pages of what the stream's client missed: behind `after`, up to where the tail begins."""
    assert stream.start is not None
    while after < stream.start:
        events = feed.read(after, stream.start, owner_id=stream.owner_id, limit=limit)
        if events:
            yield events
        if len(events) < limit:
            return
        after = feed.cursor_of(events[-1], after.cluster)
