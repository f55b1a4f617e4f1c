"""What the token endpoints take and answer: Simple JWT's serializers, which read tokens by the classes in tokens.py."""

from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers
from rest_framework_simplejwt.serializers import (
    PasswordField,
    TokenBlacklistSerializer,
    TokenObtainPairSerializer,
    TokenRefreshSerializer,
    TokenVerifySerializer,
)
from rest_framework_simplejwt.tokens import Token

from quiktrade.api.serializers import KnownFieldsSerializer
from quiktrade.auth.tokens import AnyToken, RefreshToken, require_client

NO_OBJECT: dict[str, Any] = {"invalid": "A JSON object is required."}


@extend_schema_serializer(component_name="TokenObtainPair")
class LogInSerializer(TokenObtainPairSerializer):
    default_error_messages = {
        **NO_OBJECT,
        "no_active_account": "No active account has this name and password.",
    }
    access = serializers.CharField(read_only=True)
    refresh = serializers.CharField(read_only=True)
    token_class = RefreshToken

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["password"] = PasswordField(trim_whitespace=False)  # as the console takes it

    @classmethod
    def get_token(cls, user: Any) -> Token:
        require_client(user)
        return super().get_token(user)


@extend_schema_serializer(component_name="TokenRefresh")
class RefreshSerializer(TokenRefreshSerializer):
    default_error_messages = NO_OBJECT
    token_class = RefreshToken


@extend_schema_serializer(component_name="TokenVerify")
class VerifySerializer(TokenVerifySerializer):
    default_error_messages = NO_OBJECT

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        AnyToken(attrs["token"])
        return {}


@extend_schema_serializer(component_name="TokenBlacklist")
class LogOutSerializer(TokenBlacklistSerializer):
    default_error_messages = NO_OBJECT
    token_class = RefreshToken


@extend_schema_serializer(component_name="PasswordChange")
class PasswordSerializer(KnownFieldsSerializer):
    """`context["account"]` is the account whose password changes."""

    old_password = PasswordField(trim_whitespace=False)
    new_password = PasswordField(trim_whitespace=False)

    def validate_old_password(self, value: str) -> str:
        if not self.context["account"].check_password(value):
            raise serializers.ValidationError("It is not the account's password.", "wrong_password")
        return value

    def validate_new_password(self, value: str) -> str:
        try:
            validate_password(value, self.context["account"])
        except ValidationError as error:
            raise serializers.ValidationError(
                [serializers.ErrorDetail(each.messages[0], each.code or "invalid") for each in error.error_list]
            ) from None
        return value
