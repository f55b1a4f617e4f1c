"""Slows the guessing of passwords down, in the API and the console together, whichever process is asked.

Failures are counted by name and network (/24 or /64). From the fifth on, the next attempt must wait: a second, then
two, four and so on, 15 minutes at most. Who guesses from many networks meets a second count, of the name alone, for
all networks from which the name never came in: after 20 failures they share one attempt in up to ten seconds. Nobody
is ever locked out: an owner comes in from where they came in before, whatever others do, and from elsewhere after a
wait.

An attempt is counted before its password is checked and taken back when it was right, so that a hundred at once are
not all the first one. A refused attempt is not counted, and costs no hash.
"""

import logging
import math
from ipaddress import ip_address, ip_network
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.utils.crypto import salted_hmac
from rest_framework.throttling import BaseThrottle

from quiktrade.auth.clients import plain
from quiktrade.auth.turns import Busy
from quiktrade.database.statements import fetch
from quiktrade.errors import Refusal

logger = logging.getLogger(__name__)

FREE = 5
"""This many failures in one network cost nothing."""
LONGEST_SECONDS = 900.0
FREE_ELSEWHERE = 20
"""This many failures of a name in networks from which it never came in cost nothing."""
LONGEST_ELSEWHERE_SECONDS = 10.0
ELSEWHERE = "*"

_WAIT = "least(%(longest)s, 2 ^ least(f.failures - %(free)s, 30)) * interval '1 second'"
_STALE = "f.last_at < statement_timestamp() - interval '1 day'"
_COUNT = f"""
WITH old AS (
    DELETE FROM quiktrade_loginfailures WHERE ctid IN (
        SELECT ctid FROM quiktrade_loginfailures
        WHERE last_at < statement_timestamp() - interval '1 day'
            AND (succeeded_at IS NULL OR succeeded_at < statement_timestamp() - interval '60 days')
        LIMIT 100 FOR UPDATE SKIP LOCKED
    ) AND (name, network) <> (%(name)s, %(network)s)
)
INSERT INTO quiktrade_loginfailures AS f (name, network, failures, last_at)
VALUES (%(name)s, %(network)s, 1, statement_timestamp())
ON CONFLICT (name, network) DO UPDATE SET
    failures = CASE WHEN {_STALE} THEN 1 ELSE f.failures + 1 END, last_at = statement_timestamp()
WHERE {_STALE} OR f.failures < %(free)s OR f.last_at + {_WAIT} <= statement_timestamp()
RETURNING f.succeeded_at IS NOT NULL
"""
_LEFT = f"""
SELECT extract(epoch FROM f.last_at + {_WAIT} - statement_timestamp())::float8
FROM quiktrade_loginfailures f WHERE f.name = %(name)s AND f.network = %(network)s
"""
_TAKE_BACK = """
WITH empty AS (
    DELETE FROM quiktrade_loginfailures
    WHERE name = %(name)s AND network = %(network)s AND failures <= 1 AND succeeded_at IS NULL
)
UPDATE quiktrade_loginfailures SET failures = greatest(failures - 1, 0)
WHERE name = %(name)s AND network = %(network)s AND (failures > 1 OR succeeded_at IS NOT NULL) RETURNING failures
"""
"""A row that says nothing goes: whoever asks with many names, faster than passwords are checked, fills no disk."""
_SUCCEEDED = """
UPDATE quiktrade_loginfailures SET failures = 0, succeeded_at = statement_timestamp()
WHERE name = %(name)s AND network = %(network)s RETURNING failures
"""


class TooManyFailures(Refusal):
    """Too many log-ins with this name failed; the password was not looked at."""

    status = 429
    kind = "too-many-requests"

    def __init__(self, seconds: float) -> None:
        self.seconds = max(1, math.ceil(seconds))
        super().__init__(f"Too many log-ins with this name failed. Try again in {self.seconds} s.")

    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.seconds)}


class GuardedBackend(ModelBackend):
    """Django's own check of a name and a password, behind the guard."""

    def authenticate(
        self, request: Any, username: str | None = None, password: str | None = None, **more: Any
    ) -> User | None:
        if request is None or username is None or password is None:  # a test's or a command's own log-in
            return super().authenticate(request, username, password, **more)
        name, network = _key(username), network_of(BaseThrottle().get_ident(request))
        counted = _admit(name, network)
        try:
            account = super().authenticate(request, username, password, **more)
        except Busy:
            _take_back(name, counted)
            raise
        if account is not None:
            fetch(_SUCCEEDED, {"name": name, "network": network})
            _take_back(name, counted[1:])
        return account


def _admit(name: str, network: str) -> list[str]:
    """Count an attempt as a failure, until it is known to be none, and say where: in its network, then elsewhere.

    Raises: TooManyFailures.
    """
    here = {"name": name, "network": network, "free": FREE, "longest": LONGEST_SECONDS}
    counted = fetch(_COUNT, here)
    if not counted:
        _refuse(here)
    ((came_in_before,),) = counted
    if came_in_before:
        return [network]
    elsewhere = {"name": name, "network": ELSEWHERE, "free": FREE_ELSEWHERE, "longest": LONGEST_ELSEWHERE_SECONDS}
    if not fetch(_COUNT, elsewhere):
        _take_back(name, [network])
        _refuse(elsewhere)
    return [network, ELSEWHERE]


def _take_back(name: str, counted: list[str]) -> None:
    for network in counted:
        fetch(_TAKE_BACK, {"name": name, "network": network})


def _refuse(of: dict[str, Any]) -> None:
    seconds = [left for (left,) in fetch(_LEFT, of)]
    logger.warning(
        "Log-in refused: too many failures", extra={"event": "auth.log_in_delayed", "network": of["network"]}
    )
    raise TooManyFailures(*seconds or [1.0])


def _key(username: str) -> str:
    return salted_hmac("quiktrade log-in", username.lower().encode(errors="replace"), algorithm="sha256").hexdigest()


def network_of(address: str | None) -> str:
    try:
        found = plain(ip_address(address or ""))
    except ValueError:
        return "unknown"
    return str(ip_network((found, 24 if found.version == 4 else 64), strict=False))
