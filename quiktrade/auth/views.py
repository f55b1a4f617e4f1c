"""Tokens: get a pair, refresh it, check one, end a session. Simple JWT does the work."""

from typing import Any

from drf_spectacular.contrib.rest_framework_simplejwt import SimpleJWTScheme
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import AnonRateThrottle
from rest_framework_simplejwt import views
from rest_framework_simplejwt.serializers import TokenBlacklistSerializer


class TokenScheme(SimpleJWTScheme):  # type: ignore[no-untyped-call]
    """How the OpenAPI document names what `TokenAuthentication` asks for. Registered by being there."""

    target_class = "quiktrade.auth.authentication.TokenAuthentication"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        where = "The `access` token that `POST /api/v1/auth/token` answers with; without the word Bearer, here."
        scheme: dict[str, Any] = super().get_security_definition(auto_schema)  # type: ignore[no-untyped-call]
        return {**scheme, "description": where}


class TokenThrottle(AnonRateThrottle):
    """Slows the guessing of passwords down, by address. Each web process counts for itself."""

    scope = "token"


@extend_schema(summary="Get tokens for a name and a password")
class TokenView(views.TokenObtainPairView):
    throttle_classes = [TokenThrottle]


@extend_schema(
    summary="Get new tokens for a refresh token",
    description="The refresh token given is void afterwards; use the new one next time.",
)
class RefreshView(views.TokenRefreshView):
    pass


@extend_schema(summary="Check a token", description="200 if it is valid, 401 if it is not.")
class VerifyView(views.TokenVerifyView):
    pass


class LogoutView(views.TokenBlacklistView):
    """Ends a session: the refresh token is void at once, its access token within its lifetime."""

    @extend_schema(summary="Void a refresh token", request=TokenBlacklistSerializer, responses={204: None})
    def post(self, request: Request, *args: object, **kwargs: object) -> Response:
        super().post(request)
        return Response(status=status.HTTP_204_NO_CONTENT)
