"""Who reads a venue's stream of reports: one session of all nodes, the holder of the lease.

The lease is a row and no lock of the database's: a frozen holder would keep such a lock for as long as its connection
stands, and after a failover a lock says nothing. Whoever takes the lease writes a new random token into the row. Each
write of the session compares the token, so a session that was frozen and goes on cannot write any more.

All clocks here are the database's.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from django.db import connection

from quiktrade.texts import MAX_ACTOR, storable


class LeaseLost(Exception):
    """Another session reads the stream now, or has read further than this one knows. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a session has read a venue's stream, and the token by which it may write."""

    venue: str
    stream: str
    token: UUID
    next_sequence: int


CLOCK_MARGIN_SECONDS = 60.0
"""A lease that ends later than this after any lease could was written before the database's clock was set back."""

_FREE = """r.lease_expires_at <= statement_timestamp()
        OR r.lease_expires_at > statement_timestamp() + (%(lease)s::float8 + %(margin)s) * interval '1 second'
        OR r.token IS NOT DISTINCT FROM %(own)s::uuid OR (%(predecessor_is_dead)s AND r.holder = %(holder)s)"""
_LEASE = "statement_timestamp() + %(lease)s::float8 * interval '1 second'"
_TAKE = f"""
INSERT INTO exchanges_reportsession AS r (venue_id, stream, token, holder, lease_expires_at)
SELECT %(venue)s, %(stream)s, %(token)s, %(holder)s, {_LEASE}
WHERE NOT EXISTS (SELECT FROM exchanges_reportsession r WHERE r.venue_id = %(venue)s AND NOT ({_FREE}))
ON CONFLICT (venue_id, stream) DO UPDATE SET token = excluded.token, holder = excluded.holder,
    lease_expires_at = excluded.lease_expires_at
WHERE {_FREE}
RETURNING r.next_sequence, r.xmax = 0
"""
_TAKEN = f"SELECT EXISTS (SELECT FROM exchanges_reportsession r WHERE r.venue_id = %(venue)s AND NOT ({_FREE}))"
_RENEW = f"""
UPDATE exchanges_reportsession SET lease_expires_at = {_LEASE}
WHERE venue_id = %(venue)s AND stream = %(stream)s AND token = %(token)s AND next_sequence = %(next)s RETURNING 1
"""
_GIVE_BACK = """
UPDATE exchanges_reportsession SET lease_expires_at = statement_timestamp()
WHERE venue_id = %(venue)s AND token = %(own)s
"""
_SET_BACK = """
UPDATE exchanges_reportsession SET next_sequence = %(to)s
WHERE venue_id = %(venue)s AND stream = %(stream)s AND token = %(token)s AND next_sequence = %(next)s RETURNING 1
"""


@dataclass(slots=True)
class Lease:
    """The lease of one venue's reports, for one session. `holder` names the session.

    With `predecessor_is_dead` it is proved that no other session of this name runs, so its lease need not end first.
    """

    venue: str
    holder: str
    seconds: float
    predecessor_is_dead: bool = False
    own: UUID | None = None
    """The token that this session wrote last."""

    def is_free(self) -> bool:
        """Whether this session could take the lease now."""
        return not self._first(_TAKEN)[0]

    def take(self, stream: str) -> tuple[Checkpoint, bool] | None:
        """Take or keep the lease, under a new token. None if another session has it.

        Returns also whether nobody has read this stream before. The shortcut for a dead predecessor is for the first
        time only: two nodes that have one name by mistake would take it from one another for ever.
        """
        token = uuid4()
        row = self._one(_TAKE, stream=stream, token=token)
        self.predecessor_is_dead = False
        if row is None:
            return None
        self.own = token
        return Checkpoint(self.venue, stream, token, row[0]), row[1]

    def renew(self, at: Checkpoint) -> None:
        """Raises: LeaseLost."""
        self._compare(_RENEW, at)

    def set_back(self, at: Checkpoint, to: int) -> Checkpoint:
        """Move the checkpoint to a lower number. Raises: LeaseLost."""
        self._compare(_SET_BACK, at, to=to)
        return Checkpoint(at.venue, at.stream, at.token, to)

    def give_back(self) -> None:
        """Let another session take the lease at once."""
        if self.own is not None:
            with connection.cursor() as cursor:
                cursor.execute(_GIVE_BACK, {"venue": self.venue, "own": self.own})
            self.own = None

    def _compare(self, statement: str, at: Checkpoint, **more: int) -> None:
        row = self._one(statement, stream=at.stream, token=at.token, next=at.next_sequence, **more)
        if row is None:
            raise LeaseLost(f"{self.venue}: {at.stream} is read by another session")

    def _first(self, statement: str) -> Any:
        row = self._one(statement)
        assert row is not None
        return row

    def _one(self, statement: str, **more: object) -> Any:
        given: dict[str, Any] = {
            "venue": self.venue,
            "holder": storable(self.holder, MAX_ACTOR),
            "lease": self.seconds,
            "margin": CLOCK_MARGIN_SECONDS,
            "own": self.own,
            "predecessor_is_dead": self.predecessor_is_dead,
            **more,
        }
        with connection.cursor() as cursor:
            cursor.execute(statement, given)
            return cursor.fetchone()
