"""Tokens: get a pair, refresh it, check one, end a session; and the password. Simple JWT does the work."""

import base64
import logging
from typing import Any, cast
from urllib.parse import parse_qsl, unquote_plus

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe
from drf_spectacular.contrib.rest_framework_simplejwt import SimpleJWTScheme
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.exceptions import ParseError, PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import AnonRateThrottle, UserRateThrottle
from rest_framework.views import APIView
from rest_framework_simplejwt import views
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.tokens import Token

from quiktrade.api.parsers import StrictJSONParser
from quiktrade.auth import audit, clients
from quiktrade.auth.authentication import address_of
from quiktrade.auth.keys import ring
from quiktrade.auth.serializers import (
    ClientCredentialsSerializer,
    ClientTokenSerializer,
    LogInSerializer,
    LogOutSerializer,
    PasswordSerializer,
    RefreshSerializer,
    VerifySerializer,
)
from quiktrade.auth.tokens import AccessToken, account_of, require_client
from quiktrade.metrics.names import LOGINS, REFRESHES

logger = logging.getLogger(__name__)

_RESULTS = {200: "ok", 401: "wrong", 429: "throttled"}
"""What metrics say of an answer."""


JWKS_SECONDS = 300
"""A copy of the published keys may be used for this long. It must be shorter than `keys.LEAD`."""


@require_safe
def jwks(request: HttpRequest) -> HttpResponse:
    """The public keys, with which others can verify an access token themselves (RFC 7517)."""
    return JsonResponse({"keys": ring.published()}, headers={"Cache-Control": f"public, max-age={JWKS_SECONDS}"})


class TokenScheme(SimpleJWTScheme):  # type: ignore[no-untyped-call]
    """Describes `TokenAuthentication` in the OpenAPI document. Defining the class registers it."""

    target_class = "quiktrade.auth.authentication.TokenAuthentication"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        where = "The `access` token that `POST /api/v1/auth/token` answers with; without the word Bearer, here."
        scheme: dict[str, Any] = super().get_security_definition(auto_schema)  # type: ignore[no-untyped-call]
        return {**scheme, "description": where}


class TokenThrottle(AnonRateThrottle):
    """Slows the guessing of passwords down, by address. Each web process counts for itself."""

    scope = "token"


class PasswordThrottle(UserRateThrottle):
    """The same by account, against somebody who has a token and guesses the password."""

    scope = "token"


class NotStored(APIView):
    """Its answers have tokens in them, and no cache may keep them (RFC 6749, 5.1)."""

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Response:
        answer: Response = super().finalize_response(request, response, *args, **kwargs)
        answer["Cache-Control"] = "no-store"
        return answer


@extend_schema(summary="Get tokens for a name and a password")
class TokenView(NotStored, views.TokenObtainPairView):
    serializer_class = LogInSerializer
    throttle_classes = [TokenThrottle]

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        LOGINS(_RESULTS.get(response.status_code, "other")).inc()
        return super().finalize_response(request, response, *args, **kwargs)


@extend_schema(
    summary="Get new tokens for a refresh token",
    description=(
        "The refresh token given is void afterwards; use the new one next time. For ten seconds the same request gets "
        "the same refresh token again, in case its answer was lost. A refresh token that is used later than that is "
        "taken for a stolen one: its whole session ends."
    ),
)
class RefreshView(NotStored, views.TokenRefreshView):
    serializer_class = RefreshSerializer

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        REFRESHES(_RESULTS.get(response.status_code, "other")).inc()
        if response.status_code == status.HTTP_401_UNAUTHORIZED:
            audit.refresh_refused(response.data["type"].rpartition(":")[2])
        return super().finalize_response(request, response, *args, **kwargs)


@extend_schema(summary="Check a token", description="200 if it is valid, 401 if it is not.")
class VerifyView(views.TokenVerifyView):
    serializer_class = VerifySerializer


class LogoutView(views.TokenBlacklistView):
    """Ends a session: its refresh token is void at once, and its access tokens within a second."""

    serializer_class = LogOutSerializer

    @extend_schema(summary="End a session", request=LogOutSerializer, responses={204: None})
    def post(self, request: Request, *args: object, **kwargs: object) -> Response:
        super().post(request)
        return Response(status=status.HTTP_204_NO_CONTENT)


class FormParser(StrictJSONParser):
    """A form, as RFC 6749 has it: each parameter once."""

    media_type = "application/x-www-form-urlencoded"

    def read(self, body: bytes) -> Any:
        try:
            pairs = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=20)
        except ValueError:
            raise ParseError("The body is not a form of at most 20 parameters.") from None
        if len(dict(pairs)) < len(pairs):
            raise ParseError("The body has a parameter twice.")
        return dict(pairs)


class ClientTokenView(NotStored):
    """Tokens of service accounts (RFC 6749, 4.4). A secret cannot be guessed, so nothing is counted here."""

    authentication_classes: list[Any] = []
    permission_classes: list[Any] = []
    parser_classes = [FormParser, StrictJSONParser]

    @extend_schema(
        summary="Get a token for a service account",
        description=(
            "OAuth 2.0 client credentials: the client id and secret that an operator made, in the header (HTTP Basic) "
            "or in the body. There is no refresh token: ask for a new access token instead."
        ),
        request={
            "application/json": ClientCredentialsSerializer,
            "application/x-www-form-urlencoded": ClientCredentialsSerializer,
        },
        responses=ClientTokenSerializer,
        auth=cast(Any, [{"clientSecret": []}]),
    )
    def post(self, request: Request) -> Response:
        values = ClientCredentialsSerializer().run_validation(request.data)
        id, secret = _basic(request) or (values.get("client_id", ""), values.get("client_secret", ""))
        client = clients.authenticate(id, secret, address=address_of(request))
        require_client(client.user)
        scope = values.get("scope", client.scope)
        if not set(scope.split()) <= set(client.scope.split()):
            detail = f"This service account may have no more than: {client.scope}."
            raise serializers.ValidationError({"scope": detail}, "invalid_scope")
        token = AccessToken.for_client(client, scope)
        seconds = int(api_settings.ACCESS_TOKEN_LIFETIME.total_seconds())
        body = {"access_token": str(token), "token_type": "Bearer", "expires_in": seconds, "scope": scope}
        return Response(body)


def _basic(request: Request) -> tuple[str, str] | None:
    """The id and the secret of the header, if it has any. Raises: InvalidClient, if they cannot be read."""
    scheme, _, encoded = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        id, _, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:
        raise clients.InvalidClient from None
    return unquote_plus(id), unquote_plus(secret)


class PasswordView(APIView):
    throttle_classes = [PasswordThrottle]

    @extend_schema(
        summary="Change your password",
        description="Every token issued before is void within a second, the one of this request too: log in again.",
        request=PasswordSerializer,
        responses={204: None},
    )
    def post(self, request: Request) -> Response:
        # Not request.user: that object is cached, and other requests use it at the same time.
        token = cast(Token, request.auth)
        if "client_id" in token:
            raise PermissionDenied("A service account changes no password: its token must be one of a log-in.")
        account = cast(User, account_of(token))
        values = PasswordSerializer(context={"account": account}).run_validation(request.data)
        before = account.password
        account.set_password(values["new_password"])
        if not User.objects.filter(pk=account.pk, password=before).update(password=account.password):
            raise serializers.ValidationError(
                {"old_password": "The password was changed by another request meanwhile."}, "wrong_password"
            )
        logger.info("Password changed", extra={"event": "account.password_changed", "client": account.username})
        return Response(status=status.HTTP_204_NO_CONTENT)
