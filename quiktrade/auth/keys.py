"""The keys that sign tokens: Ed25519 key pairs. The header of a token names the key that signed it, by `kid`.

Keys are rows, so that every process has the same. A private key is encrypted with a key that is derived from
`SECRET_KEY`: a copy of the database alone signs nothing, and a new secret key makes every token void. The first token
makes the first key. `manage.py rotate_keys` makes further ones: each is known to every process, and published, for
`LEAD` before it signs, and the earlier ones verify until the last token that they signed has run out. A key that was
withdrawn verifies nothing, whatever a process remembers of its tokens, `READ_SECONDS` and a second later.
"""

import base64
import json
import logging
import math
import secrets
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from threading import Lock
from typing import Any

import jwt
from cryptography.fernet import InvalidToken
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from django.db import connection, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone
from jwt.utils import base64url_decode
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenBackendError
from rest_framework_simplejwt.settings import api_settings

from quiktrade.auth.sealing import cipher
from quiktrade.database.pool import give_back
from quiktrade.models import SigningKey

logger = logging.getLogger(__name__)

ALGORITHM = "EdDSA"
LEAD = timedelta(minutes=10)
"""A new key is known for this long before it signs. Whoever keeps a copy of the published keys has it by then."""
READ_SECONDS = 5.0
"""A process reads the keys again after this time."""
UNKNOWN_SECONDS = 0.2
"""A token with an unknown `kid` makes a process read the keys at once, but no more often than this."""
_PURPOSE = "quiktrade signing keys"
_LOCK = 7_304_519_061
"""The advisory lock under which keys are made, so that two processes do not both make the first one."""


@dataclass(frozen=True)
class Key:
    kid: str
    private: Ed25519PrivateKey
    public: Ed25519PublicKey
    signs_from: datetime


class KeyRing(TokenBackend):
    """What Simple JWT asks to sign and to verify. The newest key signs, and every key verifies, by one algorithm."""

    def __init__(self) -> None:
        super().__init__(ALGORITHM, leeway=api_settings.LEEWAY)
        self._lock = Lock()
        self.forget()

    def forget(self) -> None:
        """Read the keys again when one is needed."""
        self._keys: dict[str, Key] = {}
        self._read_at = -math.inf

    def known(self, *, at_most_seconds_old: float = READ_SECONDS) -> dict[str, Key]:
        if time.monotonic() - self._read_at >= at_most_seconds_old:
            give_back()  # the request that reads them needs a connection, and those that wait could hold them all
            with self._lock:
                if time.monotonic() - self._read_at >= at_most_seconds_old:
                    self._keys, self._read_at = _read(), time.monotonic()
        return self._keys

    def get_verifying_key(self, token: Any) -> Any:
        kid = kid_of(token)
        key = self.known().get(kid) or self.known(at_most_seconds_old=UNKNOWN_SECONDS).get(kid)
        if key is None:
            raise TokenBackendError("The key that signed the token is not known, or was withdrawn")
        return key.public

    def encode(self, payload: dict[str, Any]) -> str:
        key = self.signer()
        return jwt.encode(payload, key.private, ALGORITHM, headers={"kid": key.kid})

    def signer(self) -> Key:
        keys = self.known()
        if not keys:
            _make_first()
            self.forget()
            keys = self.known()
        now = timezone.now()
        by_age = sorted(keys.values(), key=lambda key: (key.signs_from, key.kid))
        return next((key for key in reversed(by_age) if key.signs_from <= now), by_age[0])

    def published(self) -> list[dict[str, Any]]:
        """The public keys as RFC 7517 and RFC 8037 write them."""
        return [
            {
                "kty": "OKP",
                "crv": "Ed25519",
                "x": base64.urlsafe_b64encode(key.public.public_bytes_raw()).rstrip(b"=").decode(),
                "kid": key.kid,
                "alg": ALGORITHM,
                "use": "sig",
            }
            for key in self.known().values()
        ]


def kid_of(token: str | bytes) -> str:
    """The name of the key that a token says it was signed with; empty if it says none."""
    header, _, _ = (token if isinstance(token, bytes) else token.encode(errors="replace")).partition(b".")
    return _kid_in(header)


@lru_cache(maxsize=64)  # all tokens of a key have the same header
def _kid_in(header: bytes) -> str:
    try:
        kid = json.loads(base64url_decode(header))["kid"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    return kid if isinstance(kid, str) else ""


def rotate() -> SigningKey:
    """Make a key that signs after `LEAD`, and let those before it end when the last token of theirs has run out.

    Raises: ValueError, if the newest key does not sign yet.
    """
    with transaction.atomic():
        _lock()
        valid = SigningKey.objects.filter(_VALID)
        if waits := valid.filter(signs_from__gt=Now()).first():
            raise ValueError(f"Key {waits.kid} signs from {waits.signs_from:%Y-%m-%d %H:%M:%S} UTC; rotate after that.")
        key = _make(Now() + LEAD)
        overlap = max(api_settings.REFRESH_TOKEN_LIFETIME, api_settings.ACCESS_TOKEN_LIFETIME) + ring.get_leeway()
        until = key.signs_from + overlap
        valid.filter(verifies_until=None).exclude(pk=key.pk).update(verifies_until=until)
    ring.forget()
    logger.info("Signing key made", extra={"event": "keys.rotated", "kid": key.kid})
    return key


def withdraw(kid: str) -> None:
    """Let a key verify nothing any more. If no other one can sign now, a new one does. Raises: ValueError.

    If it was the newest one, the one before it signs again, and its end, which the rotation had set, is taken back.
    """
    with transaction.atomic():
        _lock()
        valid = SigningKey.objects.filter(_VALID)
        if not valid.filter(pk=kid).update(verifies_until=Now()):
            raise ValueError(f"There is no valid key {kid}.")
        if not valid.filter(signs_from__lte=Now()).exists():
            _make(Now())
        elif not valid.filter(verifies_until=None).exists():
            newest = valid.order_by("-signs_from").values("pk")[:1]
            SigningKey.objects.filter(pk__in=newest).update(verifies_until=None)
    ring.forget()
    logger.warning("Signing key withdrawn", extra={"event": "keys.withdrawn", "kid": kid})


def valid_keys() -> list[SigningKey]:
    return list(SigningKey.objects.filter(_VALID).order_by("signs_from", "kid"))


_VALID = Q(verifies_until=None) | Q(verifies_until__gt=Now())


def _make_first() -> None:
    with transaction.atomic():
        _lock()
        if not _read():
            _make(Now())


def _make(signs_from: Any) -> SigningKey:
    private = cipher(_PURPOSE).encrypt(Ed25519PrivateKey.generate().private_bytes_raw()).decode()
    key = SigningKey.objects.create(kid=secrets.token_hex(8), private=private, signs_from=signs_from)
    key.refresh_from_db()
    return key


def _lock() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])


def _read() -> dict[str, Key]:
    """The valid keys. Those of another secret key cannot be read, and are left out."""
    sealed, keys = cipher(_PURPOSE), {}
    for row in valid_keys():
        try:
            private = Ed25519PrivateKey.from_private_bytes(sealed.decrypt(row.private.encode()))
        except InvalidToken:
            continue
        keys[row.kid] = Key(row.kid, private, private.public_key(), row.signs_from)
    return keys


ring = KeyRing()
