"""Tokens and the accounts that they stand for. The tokens are Simple JWT's, with each claim checked before its use.

A signature proves that the token was made with our key. It does not prove that the claims have the form of ours, and
Simple JWT passes them unchecked to `datetime` and to the database. For every endpoint that reads a token, each failure
is one of the errors below.
"""

import re
from functools import cached_property
from typing import Any, Self, cast
from uuid import UUID

from django.contrib.auth.models import AbstractBaseUser, Permission, User
from django.db.models import Exists, F, OuterRef, Q, Subquery
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework_simplejwt import tokens
from rest_framework_simplejwt.exceptions import ExpiredTokenError, TokenError
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.tokens import Token
from rest_framework_simplejwt.utils import get_md5_hash_password

from quiktrade.auth import second_factor, sessions
from quiktrade.auth.clients import usable
from quiktrade.auth.keys import kid_of, ring
from quiktrade.auth.scopes import ALL
from quiktrade.auth.sessions import Continued
from quiktrade.models import ApiClient, Session

LOG_IN = "Log in for a new one: POST /api/v1/auth/token."
REFRESH = "Get a new one with the refresh token: POST /api/v1/auth/token/refresh."

PASSWORD_CLAIM: str = api_settings.REVOKE_TOKEN_CLAIM
"""A digest of the password's hash: a token is void when the password that it was issued under is changed."""

_ACCOUNT_ID = re.compile(r"[0-9]{1,18}", re.ASCII)
_SESSION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_CLIENT_ID = re.compile(r"[0-9a-z_]{1,32}", re.ASCII)
_TOKEN_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_LATEST = 253_402_300_799
"""The end of the year 9999, the last year that Python's times can hold."""

_LAST_GENERATION = 2_147_483_646
"""One more is the largest number that the column holds."""


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
    kid: str | None = None
    """The key that signed it; None for a token that is being made."""
    _token_backend = ring

    def __init__(self, token: Any = None, verify: bool = True) -> None:
        try:
            super().__init__(token, verify)
        except ExpiredTokenError:
            raise ExpiredToken(f"The token has run out. {self.next_step}") from None
        except TokenError as error:
            raise InvalidToken(f"{error}. {LOG_IN}") from None
        if token is not None:
            self.kid = kid_of(token)

    def verify(self) -> None:
        claims = self.payload
        expires, account, token, password = (claims.get(name) for name in ("exp", "user_id", "jti", PASSWORD_CLAIM))
        session, generation, scope = claims.get("sid"), claims.get("gen"), claims.get("scope")
        client = claims.get("client_id")
        if not (
            (type(expires) is int and 0 < expires <= _LATEST)
            and (isinstance(account, str) and _ACCOUNT_ID.fullmatch(account))
            and (isinstance(token, str) and _TOKEN_ID.fullmatch(token))
            and isinstance(password, str)
            and isinstance(scope, str)
            and (client is None or (isinstance(client, str) and _CLIENT_ID.fullmatch(client)))
            and (session is None or (isinstance(session, str) and _SESSION_ID.fullmatch(session)))
            and (generation is None or (type(generation) is int and 0 < generation <= _LAST_GENERATION))
        ):
            raise InvalidToken
        super().verify()

    def verify_token_type(self) -> None:
        if self.payload.get(api_settings.TOKEN_TYPE_CLAIM) != self.token_type:
            raise InvalidToken(f"The token is not of the kind that is needed here: {self.token_type}. {LOG_IN}")


class AccessToken(_Checked, tokens.AccessToken):
    """An access token. `TokenAuthentication` looks its account up and remembers it."""

    @classmethod
    def for_user(cls, user: Any, scope: str = ALL) -> Self:
        token = super().for_user(user)
        token["scope"] = scope
        return token

    @classmethod
    def for_client(cls, client: ApiClient, scope: str) -> Self:
        """A token of a service account, which acts for its user."""
        token = cls.for_user(client.user, scope)
        token["client_id"] = client.pk  # as RFC 9068 calls it
        return token

    @cached_property
    def scopes(self) -> frozenset[str]:
        """What it may be used for."""
        return frozenset(self.payload["scope"].split())


class RefreshToken(_Checked, tokens.RefreshToken):
    """A refresh token: a session's id and a generation. Whether it is the valid one is decided when it is used."""

    access_token_class = AccessToken
    no_copy_claims: Any = (*tokens.RefreshToken.no_copy_claims, "gen")
    next_step = LOG_IN

    @classmethod
    def for_user(cls, user: Any, scope: str = ALL) -> Self:
        """Begin a session. Raises: InvalidToken, if the account has changed since it was read."""
        try:
            return cls.of(sessions.begin(user), scope)
        except sessions.Ended:
            raise InvalidToken(f"The account was closed or changed meanwhile. {LOG_IN}") from None

    @classmethod
    def of(cls, session: Continued, scope: str) -> Self:
        token = cls()
        token.payload |= {
            "user_id": str(session.user_id),
            PASSWORD_CLAIM: session.password_mark,
            "sid": str(session.id),
            "gen": session.generation,
            "scope": scope,
            "iat": int(session.refreshed_at.timestamp()),
            "exp": int(session.expires_at.timestamp()),
            "jti": session.token_id,
        }
        return token

    def verify(self) -> None:
        super().verify()
        self._require_session()
        second_factor.require_set_up(account_of(self))

    def _require_session(self) -> None:
        if "sid" not in self.payload or "gen" not in self.payload:
            raise InvalidToken

    @property
    def session_id(self) -> UUID:
        return UUID(self.payload["sid"])

    def exchanged(self) -> Self:
        """The next refresh token, or again the one that this was exchanged for a moment ago. Raises: InvalidToken."""
        claims = self.payload
        account = {"user_id": int(claims["user_id"]), "password_mark": claims[PASSWORD_CLAIM]}
        try:
            return type(self).of(sessions.refresh(self.session_id, claims["gen"], **account), claims["scope"])
        except sessions.Ended:
            raise InvalidToken(f"The session has ended. {LOG_IN}") from None


class AnyToken(RefreshToken):
    """A token of either kind, whose validity is asked for."""

    next_step = REFRESH

    def verify(self) -> None:
        super().verify()
        if "gen" in self.payload and not sessions.is_valid(self.session_id, self.payload["gen"]):
            raise InvalidToken(f"The token was exchanged for another one. {LOG_IN}")

    def _require_session(self) -> None:
        if self.payload[api_settings.TOKEN_TYPE_CLAIM] == RefreshToken.token_type:
            super()._require_session()

    def verify_token_type(self) -> None:
        """Accept either type."""
        if self.payload.get(api_settings.TOKEN_TYPE_CLAIM) not in (AccessToken.token_type, RefreshToken.token_type):
            raise InvalidToken


def account_of(token: Token) -> AbstractBaseUser:
    """Read the account that a token stands for. Raises: InvalidToken, NotAClient."""
    kid = getattr(token, "kid", None)
    if kid is not None and kid not in ring.known():  # the token was verified before, and its key withdrawn since
        raise InvalidToken(f"The key that signed the token was withdrawn. {LOG_IN}")
    accounts = User.objects.filter(pk=token["user_id"]).annotate(
        orders_per_second=F("limits__orders_per_second"), reads_per_second=F("limits__reads_per_second")
    )
    session = token.get("sid")
    if session is not None:
        its_own = Session.objects.filter(pk=session, user=OuterRef("pk"), revoked_at=None)
        accounts = accounts.annotate(in_session=Exists(its_own))
    client = token.get("client_id")
    if client is not None:
        its_client = ApiClient.objects.filter(usable(), pk=client, user=OuterRef("pk"))
        accounts = accounts.annotate(networks=Subquery(its_client.values("networks")))
    account = accounts.first()
    if account is None or not account.is_active:
        raise InvalidToken(f"The account is closed. {LOG_IN}")
    if get_md5_hash_password(account.password) != token[PASSWORD_CLAIM]:
        raise InvalidToken(f"The account's password was changed. {LOG_IN}")
    if session is not None and not cast(Any, account).in_session:
        raise InvalidToken(f"The session has ended. {LOG_IN}")
    if client is not None and cast(Any, account).networks is None:
        raise InvalidToken("The service account was disabled or has run out. An operator keeps it.")
    require_client(account)
    return account


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
