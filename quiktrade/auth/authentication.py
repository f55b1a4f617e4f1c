"""The one place where a caller's token is verified.

What was found is kept in the process: a token's signature until the token runs out, and its account for a
second, so that who deactivates an account in the console waits that long at most.
"""

import hashlib
import time
from threading import Lock
from typing import Any

from cachetools import TLRUCache, TTLCache, cached
from django.contrib.auth.models import AbstractBaseUser
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.tokens import Token

from quiktrade import waiting

ACCOUNT_SECONDS = 1.0
MOST = 10_000

_tokens: TLRUCache[Any, Token] = TLRUCache(MOST, ttu=lambda key, token, now: token["exp"], timer=time.time)
_accounts: TTLCache[Any, AbstractBaseUser] = TTLCache(MOST, ttl=ACCOUNT_SECONDS)
_lock = Lock()


def _digest(self: object, raw_token: bytes) -> Any:
    return hashlib.sha256(raw_token).digest()  # not the token itself, which would be of use to others


def _account(self: object, validated_token: Token) -> Any:
    return validated_token.get("user_id")


class TokenAuthentication(JWTAuthentication):
    """Simple JWT's, with a memory."""

    @cached(_tokens, key=_digest, lock=_lock)
    def get_validated_token(self, raw_token: bytes) -> Token:
        return super().get_validated_token(raw_token)

    @cached(_accounts, key=_account, lock=_lock)
    def get_user(self, validated_token: Token) -> Any:
        read = super().get_user
        return waiting.aside(lambda: read(validated_token))


def forget() -> None:
    """Verify everything anew."""
    with _lock:
        _tokens.clear()
        _accounts.clear()
