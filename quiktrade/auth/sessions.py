"""Sessions: what a log-in begins and a chain of refresh tokens continues.

A refresh token holds the session's id and a generation, and the row says which generation is valid. So nothing secret
is stored, and one statement decides what a refresh means, however many arrive at once:

- the valid generation: the next one becomes valid. So it does for a newer one, which the database has lost: this
  gateway signed it, and the commit went with a primary, or with what was done after a backup;
- the one before it, within `GRACE_SECONDS`: the answer was lost, and the same answer is given again;
- an older one: two parties have the chain, and which of them is honest is not known. The session ends.

The statement also asks for the account: a new password, a deactivation and a deletion end its sessions.
"""

import hashlib
import logging
import uuid
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import User
from django.db.models.functions import Now
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.utils import get_md5_hash_password

from quiktrade.database.statements import fetch
from quiktrade.models import Session

logger = logging.getLogger(__name__)

GRACE_SECONDS = 10.0
"""For this long after a refresh the same refresh token gets the same answer again."""

_BEGIN = """
WITH ended AS (
    DELETE FROM quiktrade_session WHERE user_id = %(user)s AND expires_at <= statement_timestamp()
)
INSERT INTO quiktrade_session (id, user_id, generation, expires_at, revoked_for)
SELECT %(id)s, u.id, 1, statement_timestamp() + %(lifetime)s, ''
FROM auth_user u
WHERE u.id = %(user)s AND u.is_active AND u.password = %(password)s
FOR SHARE
RETURNING refreshed_at, expires_at
"""
"""The account is read and locked again: a password that was changed since it was checked begins nothing."""

_REFRESH = """
WITH found AS (
    SELECT s.id, s.generation, s.refreshed_at
    FROM quiktrade_session s JOIN auth_user u ON u.id = s.user_id
    WHERE s.id = %(id)s AND s.revoked_at IS NULL AND s.expires_at > statement_timestamp()
        AND u.id = %(user)s AND u.is_active AND upper(md5(u.password)) = %(mark)s
    FOR NO KEY UPDATE OF s
), judged AS (
    SELECT id, CASE
        WHEN generation <= %(generation)s THEN 'next'
        WHEN generation = %(generation)s + 1
            AND refreshed_at > statement_timestamp() - make_interval(secs => %(grace)s) THEN 'again'
        ELSE 'reuse' END AS verdict
    FROM found
)
UPDATE quiktrade_session s SET
    generation = CASE verdict WHEN 'next' THEN %(generation)s + 1 ELSE s.generation END,
    refreshed_at = CASE verdict WHEN 'next' THEN statement_timestamp() ELSE s.refreshed_at END,
    expires_at = CASE verdict WHEN 'next' THEN statement_timestamp() + %(lifetime)s ELSE s.expires_at END,
    revoked_at = CASE verdict WHEN 'reuse' THEN statement_timestamp() END,
    revoked_for = CASE verdict WHEN 'reuse' THEN 'reuse' ELSE '' END
FROM judged WHERE s.id = judged.id
RETURNING verdict, s.generation, s.refreshed_at, s.expires_at
"""


class Ended(Exception):
    """The session, its account or its password is not what it was: only a new log-in helps."""


@dataclass(frozen=True)
class Continued:
    """A session as its valid refresh token states it."""

    id: uuid.UUID
    user_id: int
    password_mark: str
    generation: int
    refreshed_at: datetime
    expires_at: datetime

    @property
    def token_id(self) -> str:
        """The `jti` of the refresh token: the same one whenever this generation is stated again."""
        return hashlib.sha256(f"{self.id}.{self.generation}".encode()).hexdigest()[:32]


def begin(user: User) -> Continued:
    """Begin a session. `user` is the account as it was when its password was checked. Raises: Ended."""
    id, mark = uuid.uuid4(), get_md5_hash_password(user.password)
    values = {"id": id, "user": user.pk, "password": user.password, "lifetime": api_settings.REFRESH_TOKEN_LIFETIME}
    for refreshed_at, expires_at in fetch(_BEGIN, values):
        return Continued(id, user.pk, mark, 1, refreshed_at, expires_at)
    raise Ended


def refresh(id: uuid.UUID, generation: int, *, user_id: int, password_mark: str) -> Continued:
    """Make the next generation valid, for a refresh token that is. Raises: Ended."""
    values = {
        "id": id,
        "generation": generation,
        "user": user_id,
        "mark": password_mark,
        "grace": GRACE_SECONDS,
        "lifetime": api_settings.REFRESH_TOKEN_LIFETIME,
    }
    for verdict, valid, refreshed_at, expires_at in fetch(_REFRESH, values):
        if verdict == "reuse":
            logger.error(
                "A refresh token was used again: its session was ended",
                extra={"event": "auth.refresh_reused", "session": str(id), "account_id": user_id},
            )
            raise Ended
        return Continued(id, user_id, password_mark, valid, refreshed_at, expires_at)
    raise Ended


def end(id: uuid.UUID) -> None:
    """End a session because its client asked for it."""
    open_ones = Session.objects.filter(pk=id, revoked_at=None)
    open_ones.update(revoked_at=Now(), revoked_for="logout")


def is_valid(id: uuid.UUID, generation: int) -> bool:
    """Whether a refresh token of this generation is the valid one."""
    return Session.objects.filter(pk=id, generation=generation, revoked_at=None).exists()
