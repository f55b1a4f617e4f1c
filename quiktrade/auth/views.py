"""Tokens: get a pair, refresh it, check one, end a session; and the password. Simple JWT does the work."""

import logging
from typing import Any, cast

from django.contrib.auth.models import User
from drf_spectacular.contrib.rest_framework_simplejwt import SimpleJWTScheme
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import AnonRateThrottle, UserRateThrottle
from rest_framework.views import APIView
from rest_framework_simplejwt import views
from rest_framework_simplejwt.tokens import Token

from quiktrade.auth.serializers import (
    LogInSerializer,
    LogOutSerializer,
    PasswordSerializer,
    RefreshSerializer,
    VerifySerializer,
)
from quiktrade.auth.tokens import account_of

logger = logging.getLogger(__name__)


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


@extend_schema(summary="Get tokens for a name and a password")
class TokenView(views.TokenObtainPairView):
    serializer_class = LogInSerializer
    throttle_classes = [TokenThrottle]


@extend_schema(
    summary="Get new tokens for a refresh token",
    description="The refresh token given is void afterwards; use the new one next time.",
)
class RefreshView(views.TokenRefreshView):
    serializer_class = RefreshSerializer


@extend_schema(summary="Check a token", description="200 if it is valid, 401 if it is not.")
class VerifyView(views.TokenVerifyView):
    serializer_class = VerifySerializer


class LogoutView(views.TokenBlacklistView):
    """Ends a session: the refresh token is void at once, its access token within its lifetime."""

    serializer_class = LogOutSerializer

    @extend_schema(summary="Void a refresh token", request=LogOutSerializer, responses={204: None})
    def post(self, request: Request, *args: object, **kwargs: object) -> Response:
        super().post(request)
        return Response(status=status.HTTP_204_NO_CONTENT)


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
        account = cast(User, account_of(cast(Token, request.auth)))
        values = PasswordSerializer(context={"account": account}).run_validation(request.data)
        before = account.password
        account.set_password(values["new_password"])
        if not User.objects.filter(pk=account.pk, password=before).update(password=account.password):
            raise serializers.ValidationError(
                {"old_password": "The password was changed by another request meanwhile."}, "wrong_password"
            )
        logger.info("Password changed", extra={"event": "account.password_changed", "client": account.username})
        return Response(status=status.HTTP_204_NO_CONTENT)
