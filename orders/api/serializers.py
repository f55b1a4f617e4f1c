"""The API's shapes. Fields are written out: what a client may send and gets to see is this page."""

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from orders.api.fields import MomentField, PriceField, QuantityField, TextField
from orders.isin import is_isin
from orders.models import (
    CLIENT_ORDER_ID_PATTERN,
    LIMIT_TYPES,
    STOP_TYPES,
    OrderEvent,
    OrderType,
    Side,
    Status,
    TimeInForce,
)

CLIENT_ORDER_ID_HELP = "Your own id of the order, 1 to 64 characters A-Z a-z 0-9 . _ : -"


class KnownFieldsSerializer(serializers.Serializer[Any]):
    """Refuses what it does not know: a misspelt field must not be a silently ignored one."""

    def to_internal_value(self, data: Any) -> Any:
        errors: dict[str, Any] = {}
        if isinstance(data, Mapping):
            allowed = ", ".join(name for name, field in self.fields.items() if not field.read_only)
            for name in data:
                if name not in self.fields:
                    errors[str(name)] = serializers.ErrorDetail(f"Unknown. Allowed are: {allowed}.", "unknown")
        try:
            values = super().to_internal_value(data)
        except serializers.ValidationError as error:
            if isinstance(error.detail, dict):
                errors = {**error.detail, **errors}
                raise serializers.ValidationError(errors) from None
            raise
        if errors:
            raise serializers.ValidationError(errors)
        return values


@extend_schema_serializer(component_name="NewOrder")
class NewOrderSerializer(KnownFieldsSerializer):
    """An order as a client submits it."""

    type = serializers.ChoiceField(OrderType.choices, help_text="FIX 40.")
    side = serializers.ChoiceField(Side.choices, help_text="FIX 54.")
    instrument = TextField(help_text="The share's ISIN: 12 characters, check digit included.")
    quantity = QuantityField(help_text="Whole shares.")
    limit_price = PriceField(required=False, help_text="Required for limit and stop_limit, forbidden otherwise.")
    stop_price = PriceField(required=False, help_text="Required for stop and stop_limit, forbidden otherwise.")
    time_in_force = serializers.ChoiceField(TimeInForce.choices, default=TimeInForce.DAY, help_text="FIX 59.")
    expires_at = MomentField(required=False, help_text="Required for gtd, forbidden otherwise; in the future.")
    place_by = MomentField(
        required=False,
        help_text="Not sent to the venue after this time, but expired: a long outage must not end in a late order.",
    )
    venue = TextField(required=False, help_text="Market identifier code; the default venue if absent.")
    client_order_id = TextField(
        required=False,
        help_text=CLIENT_ORDER_ID_HELP + "; the Idempotency-Key header means the same. Send the order again under "
        "it as often as you like: it takes effect once.",
    )

    def validate_instrument(self, value: str) -> str:
        if settings.ORDER_ISIN_CHECK:
            if not is_isin(value):
                raise serializers.ValidationError(
                    "An ISIN is required: 12 characters, two letters, nine letters or digits, and a check digit that "
                    "fits, such as US0378331005.",
                    "invalid_isin",
                )
        elif not (len(value) == 12 and value.isascii() and value.isalnum() and value == value.upper()):
            raise serializers.ValidationError("12 characters A-Z 0-9 are required.", "invalid_instrument")
        return value

    def validate_client_order_id(self, value: str) -> str:
        return validate_client_order_id(value)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        errors: dict[str, Any] = {}
        for name, required, because in (
            ("limit_price", attrs["type"] in LIMIT_TYPES, f"for type {attrs['type']}"),
            ("stop_price", attrs["type"] in STOP_TYPES, f"for type {attrs['type']}"),
            ("expires_at", attrs["time_in_force"] == TimeInForce.GTD, f"for time_in_force {attrs['time_in_force']}"),
        ):
            if required and name not in attrs:
                errors[name] = serializers.ErrorDetail(f"Required {because}.", "required")
            elif not required and name in attrs:
                errors[name] = serializers.ErrorDetail(f"Forbidden {because}.", "forbidden")
        if errors:
            raise serializers.ValidationError(errors)
        return attrs


def validate_client_order_id(value: str) -> str:
    """Raises: ValidationError, where it is not 1 to 64 of the characters allowed."""
    return str(serializers.RegexField(rf"\A{CLIENT_ORDER_ID_PATTERN}\Z", trim_whitespace=False).run_validation(value))


class OrderSerializer(serializers.Serializer[Any]):
    """An order as it stands."""

    id = serializers.UUIDField()
    client_order_id = serializers.CharField()
    status = serializers.ChoiceField(Status.choices)
    venue = serializers.CharField(source="venue_id")
    instrument = serializers.CharField()
    side = serializers.ChoiceField(Side.choices)
    type = serializers.ChoiceField(OrderType.choices)
    quantity = serializers.IntegerField()
    limit_price = PriceField(allow_null=True)
    stop_price = PriceField(allow_null=True)
    time_in_force = serializers.ChoiceField(TimeInForce.choices)
    expires_at = serializers.DateTimeField(allow_null=True)
    place_by = serializers.DateTimeField(allow_null=True)
    venue_order_id = serializers.CharField(allow_blank=True, help_text="Empty until the venue acknowledged it.")
    attempts = serializers.IntegerField(source="attempt", help_text="How often it was taken up to be sent.")
    next_attempt_at = serializers.DateTimeField(allow_null=True)
    last_error = serializers.CharField(allow_blank=True)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    placed_at = serializers.DateTimeField(allow_null=True)


class OrderEventSerializer(serializers.Serializer[Any]):
    """One step of an order's history."""

    sequence = serializers.IntegerField()
    event = serializers.CharField()
    from_status = serializers.CharField(allow_blank=True)
    to_status = serializers.CharField()
    attempt = serializers.IntegerField()
    by = serializers.SerializerMethodField(help_text="client, operator or system")
    reason = serializers.CharField(allow_blank=True)
    at = serializers.DateTimeField()

    @extend_schema_field(str)
    def get_by(self, event: OrderEvent) -> str:
        """The kind of actor: which of our people or machines it was is not the client's to know."""
        return event.actor.partition(":")[0]


class CancelSerializer(KnownFieldsSerializer):
    reason = TextField(required=False, max_length=500, help_text="Kept in the order's history.")


class OrderListQuerySerializer(KnownFieldsSerializer):
    """What a list of orders can be narrowed by."""

    status = serializers.CharField(required=False, help_text="One status, or several separated by commas.")
    side = serializers.ChoiceField(Side.choices, required=False)
    type = serializers.ChoiceField(OrderType.choices, required=False)
    instrument = serializers.RegexField(r"\A[A-Z0-9]{12}\Z", required=False)
    venue = serializers.RegexField(r"\A[A-Z0-9]{4}\Z", required=False)
    client_order_id = serializers.RegexField(rf"\A{CLIENT_ORDER_ID_PATTERN}\Z", required=False)
    created_from = MomentField(required=False, help_text="Created at this time or later.")
    created_before = MomentField(required=False, help_text="Created before this time.")
    ordering = serializers.ChoiceField(["-created_at", "created_at"], default="-created_at")
    limit = serializers.IntegerField(default=50, min_value=1, max_value=500, help_text="Orders on a page.")
    cursor = serializers.CharField(required=False, max_length=200, help_text="From `next` of the page before.")

    def validate_status(self, value: str) -> list[str]:
        chosen = value.split(",")
        if unknown := [status for status in chosen if status not in Status.values]:
            raise serializers.ValidationError(
                f"Unknown: {', '.join(unknown)[:100]}. Allowed are: {', '.join(Status.values)}.", "invalid_choice"
            )
        return chosen
