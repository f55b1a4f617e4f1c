"""The shapes of requests and answers about webhooks."""

from datetime import timedelta
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from orders.api.fields import ChoiceField, MomentField, TextField
from orders.webhook_models import LONGEST_URL, WebhookDelivery, WebhookEndpoint
from orders.webhooks.addresses import UrlRefused, check_url
from orders.webhooks.bodies import EVENT_TYPES
from orders.webhooks.services import LONGEST_OVERLAP_HOURS, OVERLAP_HOURS
from quiktrade.api.serializers import KnownFieldsSerializer

LONGEST_REPLAY = timedelta(days=31)


_URL_PATTERN = r"^[hH][tT][tT][pP][sS]?://[^\s#]+$"


@extend_schema_field({"type": "string", "format": "uri", "pattern": _URL_PATTERN, "maxLength": LONGEST_URL})
class WebhookUrlField(TextField):
    """An address that events can be sent to."""

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        try:
            return check_url(text)
        except UrlRefused as error:
            raise serializers.ValidationError(str(error), "invalid_url") from None


class EventTypesField(serializers.ListField):
    """Types of events, each of them once."""

    default_error_messages = {"not_a_list": "A JSON array of types is required.", "repeated": "Each type once."}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(child=ChoiceField(EVENT_TYPES), max_length=len(EVENT_TYPES), **kwargs)

    def to_internal_value(self, data: Any) -> list[str]:
        types: list[str] = super().to_internal_value(data)
        if len(set(types)) < len(types):
            self.fail("repeated")
        return types


@extend_schema_serializer(component_name="NewWebhook")
class NewWebhookSerializer(KnownFieldsSerializer):
    """An address, and what it is to be told."""

    url = WebhookUrlField(help_text="https://, a public address, without a user name or a fragment.")
    event_types = EventTypesField(required=False, help_text="What it is told; all types if absent or empty.")
    description = TextField(required=False, max_length=200, allow_blank=True, help_text="For yourself.")


@extend_schema_serializer(component_name="WebhookChange")
class WebhookChangeSerializer(NewWebhookSerializer):
    """What is to be changed; the rest stays as it is."""

    url = WebhookUrlField(required=False, help_text="https://, a public address, without a user name or a fragment.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not attrs:
            raise serializers.ValidationError("Nothing is to be changed. Give url, event_types or description.")
        return attrs


@extend_schema_serializer(component_name="WebhookDisable")
class WebhookDisableSerializer(KnownFieldsSerializer):
    """Why it is disabled. The body may be left out."""

    reason = TextField(required=False, max_length=500, help_text="Kept until it is enabled.")


@extend_schema_serializer(component_name="WebhookRotate")
class WebhookRotateSerializer(KnownFieldsSerializer):
    """How long the old secret goes on. The body may be left out."""

    overlap_hours = serializers.IntegerField(
        required=False,
        default=OVERLAP_HOURS,
        min_value=0,
        max_value=LONGEST_OVERLAP_HOURS,
        help_text=f"For so long both secrets sign; {OVERLAP_HOURS} if absent. 0: the old one ends at once.",
    )


@extend_schema_serializer(component_name="WebhookReplay")
class WebhookReplaySerializer(KnownFieldsSerializer):
    """A time whose events are sent again."""

    def get_fields(self) -> dict[str, Any]:
        """`from` is a word of Python."""
        return {
            "from": MomentField(help_text="Events of this time or later."),
            "to": MomentField(required=False, help_text="Events before this time; now if absent."),
        }

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        attrs.setdefault("to", timezone.now())
        if attrs["from"] >= attrs["to"]:
            raise serializers.ValidationError({"from": "It must be before `to`, and in the past."}, "invalid")
        if attrs["to"] - attrs["from"] > LONGEST_REPLAY:
            raise serializers.ValidationError(
                {"from": f"It must be at most {LONGEST_REPLAY.days} days before `to`. Replay in parts."}, "too_long"
            )
        return attrs


class WebhookSerializer(serializers.Serializer[WebhookEndpoint]):
    """A webhook, and how its receiver does. Its secret is shown when it is made, and never again."""

    id = serializers.UUIDField()
    url = serializers.CharField()
    event_types = serializers.ListField(
        child=serializers.ChoiceField(EVENT_TYPES), help_text="What it is told; empty: everything."
    )
    description = serializers.CharField(allow_blank=True)
    enabled = serializers.SerializerMethodField()
    disabled_at = serializers.DateTimeField(allow_null=True)
    disabled_reason = serializers.CharField(allow_blank=True)
    failing_since = serializers.DateTimeField(
        allow_null=True, help_text="The first failure after its last success. After 5 days it is disabled."
    )
    paused_until = serializers.DateTimeField(allow_null=True, help_text="Nothing is sent to it before this time.")
    last_success_at = serializers.DateTimeField(allow_null=True, help_text="To the minute.")
    last_error = serializers.CharField(allow_blank=True)
    old_secret_until = serializers.DateTimeField(allow_null=True, help_text="Until then two signatures are sent.")
    created_at = serializers.DateTimeField()

    def get_enabled(self, endpoint: WebhookEndpoint) -> bool:
        return endpoint.disabled_at is None


class WebhookWithSecretSerializer(WebhookSerializer):
    """A webhook with its new secret, which is shown this once."""

    secret = serializers.CharField(help_text="whsec_ and base64; keep it where your receiver finds it.")


class WebhookDeliverySerializer(serializers.Serializer[WebhookDelivery]):
    """One event on its way to a webhook."""

    id = serializers.IntegerField()
    message_id = serializers.CharField(help_text="The header webhook-id, the same at every attempt.")
    type = serializers.SerializerMethodField()
    order_id = serializers.SerializerMethodField(help_text="Null for a test.")
    status = serializers.ChoiceField(WebhookDelivery.Status.choices)
    attempts = serializers.IntegerField(source="attempt")
    next_attempt_at = serializers.SerializerMethodField(help_text="Null where there is none.")
    last_code = serializers.IntegerField(
        allow_null=True, help_text="Your receiver's last HTTP status; null: no answer."
    )
    last_text = serializers.CharField(
        allow_blank=True, help_text="The beginning of your receiver's last answer, or why there was none."
    )
    latency_ms = serializers.IntegerField(allow_null=True)
    created_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField(allow_null=True, help_text="When it was delivered, or given up.")

    @extend_schema_field({"type": "string"})
    def get_type(self, delivery: WebhookDelivery) -> str:
        return delivery.type

    @extend_schema_field({"type": "string", "format": "uuid", "nullable": True})
    def get_order_id(self, delivery: WebhookDelivery) -> Any:
        return delivery.event.order_id if delivery.event else None

    @extend_schema_field({"type": "string", "format": "date-time", "nullable": True})
    def get_next_attempt_at(self, delivery: WebhookDelivery) -> Any:
        return delivery.due_at if delivery.status == WebhookDelivery.Status.PENDING else None


@extend_schema_serializer(many=False)  # otherwise a list's answer is described as an array
class WebhookDeliveryPageSerializer(serializers.Serializer[Any]):
    """A page of deliveries, the newest first."""

    next_cursor = serializers.IntegerField(allow_null=True, help_text="For the parameter `cursor`; null on the last.")
    results = WebhookDeliverySerializer(many=True)


class WebhookDeliveryQuerySerializer(KnownFieldsSerializer):
    """The parameters of a list of deliveries."""

    status = ChoiceField(WebhookDelivery.Status.choices, required=False)
    limit = serializers.IntegerField(default=50, min_value=1, max_value=500, help_text="Deliveries on a page.")
    cursor = serializers.IntegerField(
        required=False, min_value=1, max_value=2**63 - 1, help_text="`next_cursor` of the page before."
    )


class WebhookReplayedSerializer(serializers.Serializer[Any]):
    """How much is sent again."""

    deliveries = serializers.IntegerField()
    next_from = serializers.DateTimeField(
        allow_null=True, help_text="There is more than one call takes: replay again from this time."
    )
    archived = serializers.BooleanField(
        help_text="Events of this time may be archived. Those are not sent: read your orders instead."
    )
