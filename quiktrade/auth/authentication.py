"""The one place where a caller's token is verified.

What was found is kept in the process: a token's signature until the token runs out, and its account for a second, so
that a deactivation, a new password or a change to staff in the console takes effect within that time. A withdrawn key
and the end of a session take effect with the account, too.
"""

import hashlib
import time
from collections.abc import Sequence
from threading import Lock
from typing import Any

from cachetools import TLRUCache, TTLCache, cached
from django.contrib.auth.models import AbstractBaseUser
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.tokens import Token

from quiktrade.auth.clients import require_network
from quiktrade.auth.tokens import LOG_IN, PASSWORD_CLAIM, AccessToken, InvalidToken, account_of
from quiktrade.database.batching import Batcher

_throttle = BaseThrottle()

ACCOUNT_SECONDS = 1.0
REMEMBERED = 10_000

_tokens: TLRUCache[Any, Token] = TLRUCache(REMEMBERED, ttu=lambda key, token, now: token["exp"], timer=time.time)
_accounts: TTLCache[Any, AbstractBaseUser] = TTLCache(REMEMBERED, ttl=ACCOUNT_SECONDS)
_lock = Lock()


def _digest(self: object, raw_token: bytes) -> Any:
    return hashlib.sha256(raw_token).digest()  # not the token itself, which others could use


def _account(self: object, validated_token: Token) -> Any:
    """The key includes the password: a token of an earlier password must not find what a later token left here.
    It includes the key that signed the token, which can be withdrawn, the session, which can end, and the service
    account, which can be disabled.
    """
    claims = validated_token.payload
    kid = getattr(validated_token, "kid", None)
    return claims["user_id"], claims[PASSWORD_CLAIM], kid, claims.get("sid"), claims.get("client_id")


def address_of(request: Request) -> str:
    """Where the request came from: the address that the proxy saw, if there is one."""
    return _throttle.get_ident(request)


class TokenAuthentication(JWTAuthentication):
    """Simple JWT's authentication, with a cache."""

    def authenticate(self, request: Request) -> Any:
        found = super().authenticate(request)
        if found is not None and (networks := getattr(found[0], "networks", "")):
            require_network(networks, address_of(request))
        return found

    def get_raw_token(self, header: bytes) -> bytes | None:
        """The token of `Bearer TOKEN`; None for another scheme. Case does not matter in its name (RFC 9110, 11.1)."""
        scheme, *rest = header.split() or [b""]
        if scheme.lower() != b"bearer":
            return None
        if len(rest) != 1:
            raise InvalidToken(f"The Authorization header must be the word Bearer and one token. {LOG_IN}")
        return rest[0]

    @cached(_tokens, key=_digest, lock=_lock)
    def get_validated_token(self, raw_token: bytes) -> Token:
        return AccessToken(raw_token)

    @cached(_accounts, key=_account, lock=_lock)
    def get_user(self, validated_token: Token) -> Any:
        wanted = _Wanted(validated_token)
        _look_ups.do(wanted)
        if wanted.refusal is not None:
            raise wanted.refusal
        return wanted.account


class _Wanted:
    """The account that a request asks for, or the reason why it is refused."""

    def __init__(self, token: Token) -> None:
        self.token = token
        self.account: AbstractBaseUser | None = None
        self.refusal: APIException | None = None


def _look_up(group: Sequence[_Wanted]) -> None:
    """Look up each account once, however many requests ask for it."""
    found: dict[Any, _Wanted] = {}
    for wanted in group:
        first = found.setdefault(_account(None, wanted.token), wanted)
        if first is wanted:
            try:
                wanted.account = account_of(wanted.token)
            except APIException as refusal:
                wanted.refusal = refusal
        wanted.account, wanted.refusal = first.account, first.refusal


_look_ups = Batcher(_look_up, most=REMEMBERED)


def forget() -> None:
    """Forget what is remembered, so that everything is verified again."""
    with _lock:
        _tokens.clear()
        _accounts.clear()
