"""How many orders, and reads, a client may send in a second: over all processes together, with no other server.

A client is an account; its service accounts share its limits. Each limit has a bucket of tokens, a row, which the
database's clock refills and which holds what a second brings: so much may come at once after a pause. A process takes
a lease of a tenth of that, and spends it from its memory. Most orders so cost no statement, and the others wait for no
disk, because the table is unlogged: after a crash of the server every bucket is full.

What a process has not spent within a second goes back with its next lease. So the processes together let through what
the rate allows, and at any time at most processes × a tenth of it more or less.

A client at its limit finds its bucket all but empty, and would have each process ask for every single token. So after
each lease of less than a tenth, a process waits until there may be a quarter more than the last time, up to a tenth. A
client that is below its limit again is refused next to nothing on the way there.

A limit must not cost an order that it allows. If a lease cannot be taken although the database works, orders pass
without one for a while. If the database is away, they are answered as any order then is.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from django.conf import settings
from django.contrib.auth.models import User
from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from quiktrade.database.batching import Batcher
from quiktrade.database.statements import fetch
from quiktrade.errors import Refusal
from quiktrade.models import ClientLimits

logger = logging.getLogger(__name__)

LEASES_PER_SECOND = 10
LEASE_SECONDS = 1.0
GROWTH = 1.25
"""How much more must be there after each lease that was short."""
PAUSE_SECONDS = 1.0
"""After a lease could not be taken, none is tried for this long."""
MOST_REMEMBERED = 10_000

_ONLY_THE_LEASE = ("55P03", "40P01", "57014")
"""SQLSTATEs of an OperationalError that is about the statement: lock_not_available, deadlock_detected, and
query_canceled. With another one the database cannot work."""

# The lock's bound holds for this statement alone. Statements that wait for each other have times in another order than
# their turns; a time that is further ahead was written before the clock was set back.
_TAKE = """
WITH bound AS MATERIALIZED (SELECT set_config('lock_timeout', '100ms', true)), found AS MATERIALIZED (
    SELECT w.*, LEAST(w.rate, b.tokens + w.back + w.rate
        * GREATEST(extract(epoch FROM statement_timestamp() - b.refilled_at)::float8, 0)) AS available
    FROM json_to_recordset(%(wanted)s::json) AS w
        (user_id int, name text, rate float8, need int, want int, back float8)
    CROSS JOIN bound JOIN quiktrade_tokenbucket b ON b.user_id = w.user_id AND b.name = w.name
    ORDER BY b.user_id, b.name FOR NO KEY UPDATE OF b
), granted AS (
    SELECT user_id, name, available, CASE WHEN available < LEAST(need, rate) THEN 0
        ELSE GREATEST(need, LEAST(want, floor(available)))::int END AS tokens
    FROM found
)
UPDATE quiktrade_tokenbucket b SET tokens = g.available - g.tokens,
    refilled_at = CASE WHEN b.refilled_at > statement_timestamp() + interval '1 second' THEN statement_timestamp()
        ELSE GREATEST(b.refilled_at, statement_timestamp()) END
FROM granted g WHERE b.user_id = g.user_id AND b.name = g.name
RETURNING b.user_id, b.name, g.tokens, b.tokens
"""
_MAKE = """
INSERT INTO quiktrade_tokenbucket (user_id, name, tokens, refilled_at)
SELECT w.user_id, w.name, w.rate, statement_timestamp()
FROM json_to_recordset(%(wanted)s::json) AS w (user_id int, name text, rate float8)
ORDER BY w.user_id, w.name ON CONFLICT DO NOTHING RETURNING user_id
"""


class RateLimited(Refusal):
    """The client has sent as much as it may; this request did nothing."""

    status = 429
    kind = "rate-limited"

    def __init__(self, allowance: "Allowance", seconds: float) -> None:
        self.seconds = max(1, math.ceil(seconds))
        super().__init__(
            f"You may send {allowance.per_second} {allowance.name} in a second. Send the same request again in "
            f"{self.seconds} s."
        )
        self._headers = allowance.headers()

    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.seconds), **self._headers}

    def members(self) -> dict[str, Any]:
        return {**super().members(), "retry_after": self.seconds}


class Allowance:
    """What one client may still send, as far as this process knows.

    The API's requests are greenlets, so nothing comes between a look at a number and its change.
    """

    def __init__(self, user_id: int, name: str, per_second: int) -> None:
        self.user_id = user_id
        self.name = name
        self.leased = 0
        """Tokens of the lease that are not spent."""
        self._free_until = self._asked_at = 0.0
        self.change(per_second)

    def change(self, per_second: int) -> None:
        """Ask the database before anything is spent: an operator has changed the limit."""
        self.per_second = per_second
        self._policy = f'"{self.name}";q={per_second};w=1'
        self._there = float(per_second)
        """Tokens that were in the bucket after the lease."""
        self._least = 0.0
        """Tokens that must be there for the next lease."""
        self._until = 0.0

    def spend(self, count: int) -> None:
        """Pay for this many. One request may cost more than a second brings: later ones pay for it.

        Raises: RateLimited; OperationalError, InterfaceError, if the database is away.
        """
        if self.pay(count):
            return
        wanted = Wanted(self, count)
        if wanted.has_a_chance:
            if connection.in_atomic_block:
                _take([wanted])
            else:
                _leases.do(wanted)
        if not wanted.paid:
            raise RateLimited(self, (min(count, self.per_second) - self._there_now()) / self.per_second)

    def headers(self) -> dict[str, str]:
        """The limit, and what is left, as draft-ietf-httpapi-ratelimit-headers writes it."""
        there = self._there_now()
        left = max(0, int(min(self.leased + (there if there >= self._least else 0), self.per_second)))
        until_full = max(1, math.ceil(1 - there / self.per_second))
        return {"RateLimit-Policy": self._policy, "RateLimit": f'"{self.name}";r={left};t={until_full}'}

    def _there_now(self) -> float:
        """Tokens in the bucket, if no other process has taken any: time passes here as fast as for the database."""
        there = self._there + self.per_second * (time.monotonic() - self._asked_at)
        return there if there < self.per_second else self.per_second

    # ---- For `_take` ----

    def pay(self, count: int) -> bool:
        now = time.monotonic()
        if now < self._free_until:
            return True
        if now >= self._until or self.leased < count:
            return False
        self.leased -= count
        return True

    def has_a_chance(self, count: int) -> bool:
        """Whether a lease may have enough for this. If not, the database need not be asked."""
        there = self._there_now()
        return there >= self._least and self.leased + there >= min(count, self.per_second)

    @property
    def _usual(self) -> int:
        return max(self.per_second // LEASES_PER_SECOND, 1)

    def wants(self, first: int, *others: int) -> dict[str, Any]:
        """What to lease for the sake of these requests. What is left of the last lease goes back.

        A large request leases for itself alone: if it could not be paid, all of that would lie idle here.
        """
        back, self.leased = self.leased, 0
        want = max(self._usual, first + sum(count for count in others if count <= self._usual))
        whose = {"user_id": self.user_id, "name": self.name, "rate": self.per_second}
        return {**whose, "need": first, "want": want, "back": back}

    def lease(self, tokens: int, left_there: float) -> None:
        self.leased, self._there, self._asked_at = tokens, left_there, time.monotonic()
        self._until = self._asked_at + LEASE_SECONDS
        self._least = min(max(self._least, 1) * GROWTH, self._usual) if tokens < self._usual else 0.0

    def be_free(self) -> None:
        self._free_until = time.monotonic() + PAUSE_SECONDS


class Wanted:
    """What one request has to pay."""

    def __init__(self, allowance: Allowance, count: int) -> None:
        self.allowance = allowance
        self.count = count
        self.paid = False

    def pay(self) -> bool:
        self.paid = self.allowance.pay(self.count)
        return self.paid

    @property
    def has_a_chance(self) -> bool:
        return self.allowance.has_a_chance(self.count)


def _take(group: Sequence[Wanted]) -> None:
    """Lease what these requests need, with one statement for all clients, and pay in the order in which they came."""
    waiting: dict[Allowance, list[Wanted]] = {}
    for wanted in group:
        if wanted.allowance in waiting or not wanted.pay():  # the group before may have leased enough
            waiting.setdefault(wanted.allowance, []).append(wanted)
    while waiting:
        _lease_or_be_free(waiting)
        for allowance, several in list(waiting.items()):
            first, *others = several
            first.pay()
            if unpaid := [wanted for wanted in others if not wanted.pay() and wanted.has_a_chance]:
                waiting[allowance] = unpaid
            else:
                del waiting[allowance]


def _lease_or_be_free(waiting: Mapping[Allowance, Sequence[Wanted]]) -> None:
    try:
        _lease({allowance: allowance.wants(*(each.count for each in waiting[allowance])) for allowance in waiting})
    except DatabaseError as error:
        sqlstate = getattr(error.__cause__, "sqlstate", None)
        if isinstance(error, OperationalError | InterfaceError) and sqlstate not in _ONLY_THE_LEASE:
            raise
        logger.warning(
            "Limits cannot be kept: everything passes for a moment",
            extra={"event": "limits.off", "error": str(error).strip(), "clients": len(waiting)},
        )
        for allowance in waiting:
            allowance.be_free()


def _lease(wants: Mapping[Allowance, Mapping[str, Any]]) -> None:
    missing = {(allowance.user_id, allowance.name): allowance for allowance in wants}
    for _ in range(2):
        asked = orjson.dumps([wants[allowance] for allowance in missing.values()]).decode()
        for user_id, name, tokens, left in fetch(_TAKE, {"wanted": asked}):
            missing.pop((user_id, name)).lease(tokens, left)
        if not missing:
            return
        fetch(_MAKE, {"wanted": asked})  # for clients that have no bucket yet


_leases = Batcher(_take, most=MOST_REMEMBERED)


class Limit:
    """One of the limits that every client has.

    `field` is that of `ClientLimits`, which the account that a token stands for has, too.
    """

    def __init__(self, name: str, setting: str) -> None:
        self.name = name
        self.field = f"{name}_per_second"
        self._setting = setting
        self._known: dict[int, Allowance] = {}

    @property
    def default(self) -> int:
        """0: there is none."""
        rate: int = getattr(settings, self._setting)
        return rate

    def of(self, user: Any) -> Allowance | None:
        """What this client may send; None if that is not limited."""
        per_second: int | None = getattr(user, self.field, None)
        if per_second is None:
            per_second = self.default
        if not per_second:
            return None
        allowance = self._known.get(user.pk)
        if allowance is None:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()  # their leases are lost
            allowance = self._known[user.pk] = Allowance(user.pk, self.name, per_second)
        elif allowance.per_second != per_second:
            allowance.change(per_second)
        return allowance

    def in_words(self, own: int | None) -> str:
        """A client's own limit, or the default one that it follows."""
        words = str((self.default if own is None else own) or "not limited")
        return f"{words} (the default)" if own is None else words

    def forget(self) -> None:
        self._known.clear()


ORDERS = Limit("orders", "ORDER_RATE")
READS = Limit("reads", "READ_RATE")
LIMITS = (ORDERS, READS)


class ReadThrottle(BaseThrottle):
    """Has each read of a client pay. Django REST framework calls this for every request, before its view."""

    def allow_request(self, request: Request, view: Any) -> bool:
        if request.method in ("GET", "HEAD") and request.user.is_authenticated:
            allowance = READS.of(request.user)
            if allowance is not None:
                allowance.spend(1)
        return True


# ---- Operators ----


def change(user: User, values: Mapping[str, int | None], *, by: str) -> bool:
    """Give a client limits of its own, by their fields: None is the default, and 0 is no limit.

    Returns whether that changed anything. Every process knows it within two seconds.
    """
    with transaction.atomic():
        ClientLimits.objects.get_or_create(user=user)
        limits = ClientLimits.objects.select_for_update().get(user=user)
        before = {field: getattr(limits, field) for field in values}
        if before == dict(values):
            return False
        for field, value in values.items():
            setattr(limits, field, value)
        limits.save(update_fields=list(values))
    told = {field: _in_the_log(value) for field, value in values.items()}
    told |= {f"{field}_before": _in_the_log(value) for field, value in before.items()}
    logger.info(
        "Limits changed",
        extra={
            "event": "limits.changed", "account": user.get_username(), "account_id": user.pk, "actor": by, **told
        },
    )  # fmt: skip
    return True


def own(user: User) -> dict[str, int | None]:
    """The limits of its own that a client has, by their fields."""
    limits = ClientLimits.objects.filter(user=user).first()
    return {limit.field: getattr(limits, limit.field, None) for limit in LIMITS}


def _in_the_log(value: int | None) -> str:
    return "default" if value is None else str(value) if value else "none"
