"""Reads apart from writes: lists, histories and the console's pages are read from a streaming replica, if there is one.

A client that has been told of an order finds it in every list that it asks for afterwards, wherever the list is read.
So the primary is asked, before each read, how far its write-ahead log is on disk: a commit that anybody was told of is
before that position, whichever process made it. The replica is read if it has replayed the log up to there; the
question to it is a statement of its own before the read, whose snapshot is then later. Nothing is added to the
statements that write, and the primary is asked once for all reads that wait at the same time.

It is the position on disk, and not that of the last record: notifications are written without a wait for the disk, so
the last record may be sent to the replica only a fifth of a second later.

If the replica is late, does not answer, is gone or cancels the read, the primary is read instead. Its connections are
made in threads of their pool, and a request never waits for one. A new connection is used only if it leads to
a standby with the system identifier and the timeline of the primary: positions of another history mean nothing here.
After a failover its control file shows the new timeline after its next restart point, `checkpoint_timeout` at most.
"""

import atexit
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self, TypeVar

import psycopg
from django.db import DEFAULT_DB_ALIAS, Error, connection, connections
from psycopg.errors import QueryCanceled

from quiktrade.database.batching import Batcher
from quiktrade.database.connection import WEB, Connection
from quiktrade.database.statements import fetch, reads_from

logger = logging.getLogger(__name__)

ALIAS = "replica"
Found = TypeVar("Found")

CHECK_SECONDS = 0.3
"""A replica that has not said by then how far it is does not answer, and its connections are made again."""
CATCH_UP_SECONDS = 0.01
"""A replica that is only a little late is waited for this long."""
LOOK_AGAIN_SECONDS = 0.002
PAUSE_SECONDS = 0.25
"""A replica that was later than that is waited for again only after this time."""
LATE_SECONDS = 5.0
"""A replica that has been late for longer than this is told about in the log."""
MOST_POSITIONS = 10_000


def settings(database: dict[str, Any], *, most_connections: int) -> dict[str, Any]:
    """Django's settings for the replica, from those of a database."""
    pool = {
        "name": ALIAS,
        "min_size": 1,
        "max_size": most_connections,
        "timeout": 0.01,  # it is asked for a connection only when it has one
        "reconnect_timeout": 2.0,  # then the next request has it try again
    }
    options = {**database["OPTIONS"], "pool": pool}
    return {**database, "CONN_MAX_AGE": 0, "OPTIONS": options, "TEST": {"MIRROR": DEFAULT_DB_ALIAS}}


class Position(NamedTuple):
    """A place in the write-ahead log of the primary: everything that was committed is before it."""

    timeline: int
    place: int


_POSITION = """
SELECT timeline, place FROM (SELECT pg_current_wal_flush_lsn() AS flushed WHERE NOT pg_is_in_recovery()) here,
    LATERAL (SELECT ('x' || left(pg_walfile_name(flushed), 8))::bit(32)::bigint AS timeline,
        (flushed - '0/0'::pg_lsn)::bigint AS place) p
"""
# Where it has been promoted it is not in recovery any more, and shows the place where it was.
_IS_THERE = """
SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() - '0/0'::pg_lsn >= %(place)s END
"""
_WHO_IS_THERE = """
SELECT system_identifier, timeline_id, pg_is_in_recovery() FROM pg_control_system(), pg_control_checkpoint()
"""
_SYSTEM = "SELECT system_identifier FROM pg_control_system()"


class Trouble(NamedTuple):
    """Why the replica is not read, and for how long that has been so."""

    why: str
    seconds: float


class NotThisReplica(psycopg.OperationalError):
    """What the replica's address leads to must not be read."""


class Router:
    """Has Django's models read where `read` says, and written to the primary."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return reads_from.get() or DEFAULT_DB_ALIAS

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return DEFAULT_DB_ALIAS

    def allow_relation(self, *rows: Any, **hints: Any) -> bool:
        return True

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return db == DEFAULT_DB_ALIAS


def read(work: Callable[[], Found]) -> Found:
    """Call `work`, which reads, from the replica if that has all that was committed until now; else from the primary.

    If the replica fails meanwhile, `work` is called again. It must write nothing and call no Batcher, whose other
    callers may need what was committed later.
    """
    if ALIAS not in connections.settings or reads_from.get() is not None or connection.in_atomic_block:
        return work()
    chosen = reads_from.set(DEFAULT_DB_ALIAS)
    try:
        line: Any = connections[ALIAS]
        try:
            if _is_connected(line) and (position := _position()) is not None:
                reads_from.set(ALIAS)
                line.connection.check_timeline(position)
                if _has(line, position):
                    return work()
        except (Error, NotThisReplica) as error:
            if reads_from.get() != ALIAS or isinstance(error.__cause__, QueryCanceled):
                raise  # it is the primary's; or it would take as long there
            _failed(line, error)
        finally:
            line.close()  # its pool has it again
        reads_from.set(DEFAULT_DB_ALIAS)
        return work()
    finally:
        reads_from.reset(chosen)


def _is_connected(line: Any) -> bool:
    """Take a connection that stands. If there is none, one is made, for others."""
    pool = line.pool
    if pool.closed:
        pool.open()
        atexit.register(pool.close, timeout=1.0)
    if not pool.get_stats()["pool_available"]:
        pool.check()  # with no connection at hand, it makes one in its own thread
        return False
    try:
        with line.wrap_database_errors:
            line.connect()
    except Error:  # those that it had are lost, or taken
        return False
    return True


def _has(line: Any, position: Position) -> bool:
    """Whether the replica has all of the log up to there. Raises: Error, if it does not answer or must not be used."""
    raw: Line = line.connection
    raw.answer_seconds = CHECK_SECONDS
    started = time.monotonic()
    while not (there := fetch(_IS_THERE, {"place": position.place})[0][0]):
        if there is None:
            raise NotThisReplica("It is no standby any more.")
        now = time.monotonic()
        if now < _state.wait_again_at or now - started > CATCH_UP_SECONDS:
            _state.is_late(now)
            return False
        time.sleep(LOOK_AGAIN_SECONDS)
    _state.is_used()
    raw.answer_seconds = Connection.answer_seconds or WEB.answer_seconds
    return True


def _failed(line: Any, error: Exception) -> None:
    """The primary is read instead. If the connection is lost, all of them are made again."""
    if isinstance(error, NotThisReplica):
        line.connection.close()
    if line.connection is None or line.connection.closed:
        line.pool.drain()
        _state.is_away(error)


class _Wanted:
    position: Position | None = None


def _position() -> Position | None:
    """The primary's, asked for now. None if the database is itself a standby."""
    wanted = _Wanted()
    _positions.do(wanted)
    return wanted.position


def _ask(group: Sequence[_Wanted]) -> None:
    rows = fetch(_POSITION, {})
    for wanted in group:
        wanted.position = Position(*rows[0]) if rows else None


_positions = Batcher(_ask, most=MOST_POSITIONS)


class Line(Connection):
    """A connection to the replica, made in a thread of the pool. It must lead to a standby of the primary."""

    timeline: int = 0

    @classmethod
    def connect(cls, *arguments: Any, **options: Any) -> Self:
        """Raises: psycopg.Error, after it was told in the log."""
        line: Self | None = None
        try:
            line = super().connect(*arguments, **options)
            line._verify()
        except psycopg.Error as error:
            if line is not None:
                line.close()
            _state.is_away(error)
            raise
        return line

    def _verify(self) -> None:
        self.answer_seconds = CHECK_SECONDS
        row = self.execute(_WHO_IS_THERE).fetchone()
        assert row is not None
        system, self.timeline, in_recovery = row
        if not in_recovery:
            raise NotThisReplica("It is no standby.")
        try:
            position, ((primary,),) = _position(), fetch(_SYSTEM, {})
        except Error as error:
            raise psycopg.OperationalError(f"It cannot be compared with the primary: {error}") from None
        finally:
            connection.close()  # this thread needs it no more
        if system != primary:
            raise NotThisReplica(
                f"It is no replica of this primary: its system identifier is {system}, and the primary's is {primary}."
            )
        if position is not None:
            self.check_timeline(position)

    def check_timeline(self, position: Position) -> None:
        if self.timeline != position.timeline:
            raise NotThisReplica(f"It follows timeline {self.timeline}, and the primary is on {position.timeline}.")


_LATE, _AWAY = "late", "away"


class _State:
    """What was last known of the replica, and whether the log says so. Each process has its own."""

    def __init__(self) -> None:
        self.wait_again_at = 0.0
        self._lock = threading.Lock()
        self._late_since: float | None = None
        self._told = ""
        self._told_at = 0.0

    def is_used(self) -> None:
        if self._late_since is None and not self._told:
            return
        with self._lock:
            self._late_since, self.wait_again_at = None, 0.0
            told, self._told = self._told, ""
        if told:
            logger.info("Replica used again", extra={"event": "replica.used"})

    def is_late(self, now: float) -> None:
        with self._lock:
            if now >= self.wait_again_at:
                self.wait_again_at = now + PAUSE_SECONDS
            if self._late_since is None:
                self._late_since = now
            if now - self._late_since < LATE_SECONDS or self._told == _LATE:
                return
            self._told, self._told_at = _LATE, now
        logger.warning("Replica late: lists are read from the primary", extra={"event": "replica.late"})

    def is_away(self, error: Exception) -> None:
        why = str(error).strip()
        kind = why if isinstance(error, NotThisReplica) else _AWAY  # whose attempts end in many ways
        with self._lock:
            if self._told == kind:
                return
            self._told, self._told_at = kind, time.monotonic()
        logger.warning(
            "Replica not used: lists are read from the primary", extra={"event": "replica.away", "error": why}
        )

    def trouble(self, now: float) -> Trouble | None:
        with self._lock:
            if not self._told:
                return None
            why = {_LATE: "It is late.", _AWAY: "It does not answer."}.get(self._told, self._told)
            return Trouble(why, now - self._told_at)


_state = _State()


def trouble() -> Trouble | None:
    """What keeps this process from reading the replica, as of its last read."""
    return _state.trouble(time.monotonic())


def _is_of_another(record: logging.LogRecord) -> bool:
    return not any(about == ALIAS or isinstance(about, Line) for about in record.args or ())


# The pool's own warnings come with every attempt to connect, and for each connection that is lost.
logging.getLogger("psycopg.pool").addFilter(_is_of_another)
