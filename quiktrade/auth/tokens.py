"""Tokens and the accounts that they stand for. The tokens are Simple JWT's, with each claim checked before its use.

A signature proves that the token was made with our key. It does not prove that the claims have the form of ours, and
Simple JWT passes them unchecked to `datetime` and to the database. For every endpoint that reads a token, each failure
is one of the errors below.
"""

import re
from typing import Any, cast

from django.contrib.auth.models import AbstractBaseUser, Permission, User
from django.db.models import Q
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework_simplejwt import tokens
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.exceptions import AuthenticationFailed as AccountRefused
from rest_framework_simplejwt.exceptions import ExpiredTokenError, TokenError
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.tokens import Token

LOG_IN = "Log in for a new one: POST /api/v1/auth/token."
REFRESH = "Get a new one with the refresh token: POST /api/v1/auth/token/refresh."

PASSWORD_CLAIM: str = api_settings.REVOKE_TOKEN_CLAIM
"""A digest of the password's hash: a token is void when the password that it was issued under is changed."""

_ACCOUNT_ID = re.compile(r"[0-9]{1,18}", re.ASCII)
_TOKEN_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_LATEST = 253_402_300_799
"""The end of the year 9999, the last year that Python's times can hold."""


class InvalidToken(AuthenticationFailed):
    """The token is void, and only a new log-in helps."""

    token_was_given = True
    """With this, the answer's `WWW-Authenticate` names the error."""
    default_code = "invalid_token"
    default_detail = f"The token is not a valid one. {LOG_IN}"


class ExpiredToken(InvalidToken):
    """The token was good, and has run out."""

    default_code = "expired_token"


class NotAClient(PermissionDenied):
    """The account belongs to the console and not to a client."""

    default_code = "not_a_client"
    default_detail = (
        "This account works in the console, and whoever works there does not trade. Use the account of a client, or "
        "have a superuser give this one the permission “Can use the API”."
    )


class _Checked(Token):
    next_step = REFRESH

    def __init__(self, token: Any = None, verify: bool = True) -> None:
        try:
            super().__init__(token, verify)
        except ExpiredTokenError:
            raise ExpiredToken(f"The token has run out. {self.next_step}") from None
        except TokenError as error:
            raise InvalidToken(f"{error}. {LOG_IN}") from None

    def verify(self) -> None:
        claims = self.payload
        expires, account, token, password = (claims.get(name) for name in ("exp", "user_id", "jti", PASSWORD_CLAIM))
        if not (
            (type(expires) is int and 0 < expires <= _LATEST)
            and (isinstance(account, str) and _ACCOUNT_ID.fullmatch(account))
            and (isinstance(token, str) and _TOKEN_ID.fullmatch(token))
            and isinstance(password, str)
        ):
            raise InvalidToken
        super().verify()

    def verify_token_type(self) -> None:
        if self.payload.get(api_settings.TOKEN_TYPE_CLAIM) != self.token_type:
            raise InvalidToken(f"The token is not of the kind that is needed here: {self.token_type}. {LOG_IN}")


class AccessToken(_Checked, tokens.AccessToken):
    """An access token. `TokenAuthentication` looks its account up and remembers it."""


class RefreshToken(_Checked, tokens.RefreshToken):  # type: ignore[misc]  # as Simple JWT's own is
    """A refresh token. It is valid while it is not voided and its account is valid."""

    access_token_class = AccessToken
    next_step = LOG_IN

    def verify(self) -> None:
        super().verify()
        account_of(self)


class AnyToken(RefreshToken):
    """A token of either kind, whose validity is asked for."""

    next_step = REFRESH

    def verify_token_type(self) -> None:
        """Accept either type."""


def account_of(token: Token) -> AbstractBaseUser:
    """Read the account that a token stands for. Raises: InvalidToken, NotAClient."""
    try:
        account = JWTAuthentication().get_user(token)
    except AccountRefused as refusal:
        reason = cast(dict[str, Any], refusal.detail)["detail"]
        raise InvalidToken(f"{str(reason).rstrip('.')}. {LOG_IN}") from None
    require_client(cast(User, account))
    return cast(User, account)


def require_client(account: User) -> None:
    """Raises: NotAClient, for staff without the permission.

    Superusers have every permission without being given it, but this one must be given to them, too. The check costs a
    statement for staff, and none for clients.
    """
    if not (account.is_staff or account.is_superuser):
        return
    given = Permission.objects.filter(content_type__app_label="orders", codename="use_api")
    if not given.filter(Q(user=account) | Q(group__user=account)).exists():
        raise NotAClient
