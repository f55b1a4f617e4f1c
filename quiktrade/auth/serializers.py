"""What the token endpoints take and answer: Simple JWT's serializers, which read tokens by the classes in tokens.py."""

from typing import Any, cast

from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers
from rest_framework_simplejwt.serializers import (
    PasswordField,
    TokenBlacklistSerializer,
    TokenObtainPairSerializer,
    TokenObtainSerializer,
    TokenRefreshSerializer,
    TokenVerifySerializer,
)

from quiktrade.api.serializers import KnownFieldsSerializer
from quiktrade.auth import audit, second_factor, sessions
from quiktrade.auth.scopes import ALL, Scope, scopes_of, text_of
from quiktrade.auth.tokens import AnyToken, NotAClient, RefreshToken, require_client


def _scope(value: str) -> str:
    try:
        return text_of(scopes_of(value))
    except ValueError as error:
        raise serializers.ValidationError(str(error), "invalid_scope") from None


_ONE_SCOPE = "|".join(Scope)


@extend_schema_field({"type": "string", "pattern": f"^ *({_ONE_SCOPE})( +({_ONE_SCOPE}))* *$", "maxLength": 200})
class ScopeField(serializers.CharField):
    """What a token may be used for."""


class StrippedField(serializers.CharField):
    """Spaces around it do not matter. Spaces alone are a wrong name or token like any other, and not a missing one."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        return str(super().to_internal_value(data)).strip()


NO_OBJECT: dict[str, Any] = {"invalid": "A JSON object is required."}


@extend_schema_serializer(component_name="TokenObtainPair")
class LogInSerializer(TokenObtainPairSerializer):
    default_error_messages = {
        **NO_OBJECT,
        "no_active_account": "No active account has this name and password.",
    }
    access = serializers.CharField(read_only=True)
    refresh = serializers.CharField(read_only=True)
    code = StrippedField(
        required=False,
        max_length=30,
        write_only=True,
        help_text="Of the authenticator app, or a recovery code; if the account has a second factor.",
    )
    scope = ScopeField(
        required=False,
        max_length=200,
        help_text=f"What the tokens may be used for: one or more of {ALL}, with spaces between them. Default: all.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["username"] = StrippedField(write_only=True)
        self.fields["password"] = PasswordField(trim_whitespace=False)  # as the console takes it

    validate_scope = staticmethod(_scope)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        TokenObtainSerializer.validate(self, attrs)
        user = cast(User, self.user)
        try:
            require_client(user)
        except NotAClient:
            audit.log_in_refused(user, "not a client")
            raise
        second_factor.require_code(user, attrs.get("code"))
        scope = attrs.get("scope", ALL)
        token = RefreshToken.for_user(user, scope)
        audit.logged_in(user, to="api")
        return {"access": str(token.access_token), "refresh": str(token), "scope": scope}


@extend_schema_serializer(component_name="TokenRefresh")
class RefreshSerializer(TokenRefreshSerializer):
    default_error_messages = NO_OBJECT
    refresh = StrippedField()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        token = RefreshToken(attrs["refresh"]).exchanged()
        audit.refreshed(token["user_id"])
        return {"access": str(token.access_token), "refresh": str(token)}


@extend_schema_serializer(component_name="ClientCredentials")
class ClientCredentialsSerializer(KnownFieldsSerializer):
    """The id and the secret may stand in the header instead (HTTP Basic)."""

    grant_type = serializers.ChoiceField(["client_credentials"])
    client_id = StrippedField(required=False, max_length=100)
    client_secret = PasswordField(required=False, max_length=200, trim_whitespace=False)
    scope = ScopeField(required=False, max_length=200, help_text="Less than the service account may do.")

    validate_scope = staticmethod(_scope)


@extend_schema_serializer(component_name="ClientToken")
class ClientTokenSerializer(serializers.Serializer[Any]):
    access_token = serializers.CharField()
    token_type = serializers.CharField(help_text="Bearer.")
    expires_in = serializers.IntegerField(help_text="Seconds. Then ask for a new one.")
    scope = serializers.CharField()


@extend_schema_serializer(component_name="TokenVerify")
class VerifySerializer(TokenVerifySerializer):
    default_error_messages = NO_OBJECT
    token = StrippedField(write_only=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        AnyToken(attrs["token"])
        return {}


@extend_schema_serializer(component_name="TokenBlacklist")
class LogOutSerializer(TokenBlacklistSerializer):
    default_error_messages = NO_OBJECT
    refresh = StrippedField(write_only=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        token = RefreshToken(attrs["refresh"])
        sessions.end(token.session_id)
        audit.session_ended(token["user_id"])
        return {}


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
