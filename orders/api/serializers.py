"""The shapes of requests and answers. Their fields are written out, so that this file shows all that a client may
send and sees."""

from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from orders import explanations
from orders.api.fields import (
    PRICE_HELP,
    ChoiceField,
    ClientOrderIdField,
    InstrumentField,
    MomentField,
    PriceField,
    QuantityField,
    QueryMomentField,
    VenueCodeField,
    price_text,
)
from orders.facts import average_price, leaves_quantity
from orders.isin import is_isin, why_not
from orders.models import (
    LIMIT_TYPES,
    OPEN,
    STOP_TYPES,
    OrderEvent,
    OrderRequest,
    OrderType,
    Side,
    Status,
    TimeInForce,
)
from orders.selectors import ClientOrder
from quiktrade.api.serializers import KnownFieldsSerializer

MOST_IN_A_BATCH = 500

CLIENT_ORDER_ID_HELP = "Your own id of the order, 1 to 64 characters A-Z a-z 0-9 . _ : -"


@extend_schema_serializer(component_name="NewOrder")
class NewOrderSerializer(KnownFieldsSerializer):
    """An order as a client submits it."""

    default_error_messages = {
        "invalid": "A JSON object is required: one order. Several at once go to /api/v1/orders/batch, as "
        '{{"orders": [...]}}.'
    }

    type = ChoiceField(OrderType.choices, help_text="FIX 40.")
    side = ChoiceField(Side.choices, help_text="FIX 54.")
    instrument = InstrumentField(help_text="The share's ISIN: 12 characters, an existing prefix, check digit included.")
    quantity = QuantityField(help_text="Whole shares.")
    limit_price = PriceField(
        required=False, help_text=f"Required for limit and stop_limit, forbidden otherwise. {PRICE_HELP}"
    )
    stop_price = PriceField(
        required=False, help_text=f"Required for stop and stop_limit, forbidden otherwise. {PRICE_HELP}"
    )
    time_in_force = ChoiceField(
        TimeInForce.choices,
        default=TimeInForce.DAY,
        help_text="FIX 59: day, gtc (good till cancel), ioc (immediate or cancel), fok (fill or kill) or gtd (good "
        "till date); day if absent.",
    )
    expires_at = MomentField(required=False, help_text="Required for gtd, forbidden otherwise; in the future.")
    place_by = MomentField(
        required=False,
        help_text="After this time the order expires and is not sent: a long outage must not end in a late order.",
    )
    venue = VenueCodeField(required=False, help_text="Market identifier code; the default venue if absent.")
    client_order_id = ClientOrderIdField(
        required=False,
        help_text=CLIENT_ORDER_ID_HELP + "; the Idempotency-Key header means the same. Send the order again under "
        "it as often as you like: it takes effect once.",
    )

    def validate_instrument(self, value: str) -> str:
        if settings.ORDER_ISIN_CHECK:
            if not is_isin(value):
                raise serializers.ValidationError(why_not(value), "invalid_isin")
        elif not (len(value) == 12 and value.isascii() and value.isalnum() and value == value.upper()):
            raise serializers.ValidationError("12 characters A-Z 0-9 are required.", "invalid_instrument")
        return value

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


class EachByItself(serializers.ListField):
    """A list whose items are checked later, one by one, so that an error in one refuses no other."""

    default_error_messages = {
        "not_a_list": "A JSON array of orders is required.",
        "min_length": "At least one order is required.",
        "max_length": "At most {max_length} orders are taken at once. Send several batches.",
    }

    def run_child_validation(self, data: list[Any]) -> list[Any]:
        return data


@extend_schema_serializer(component_name="NewOrderBatch")
class NewOrderBatchSerializer(KnownFieldsSerializer):
    """Orders, each of which is stored or refused by itself."""

    default_error_messages = {"invalid": 'A JSON object is required: {{"orders": [...]}}.'}

    orders = EachByItself(child=NewOrderSerializer(), min_length=1, max_length=MOST_IN_A_BATCH)


class OpenRequestSerializer(serializers.Serializer[Any]):
    """A request to cancel or replace an order that is not decided."""

    id = serializers.UUIDField(help_text="What the venue sees as the request's id, on every attempt.")
    kind = serializers.ChoiceField(OrderRequest.Kind.choices)
    client_order_id = serializers.CharField(allow_blank=True, help_text="Your own id of the request, if you gave one.")
    status = serializers.ChoiceField(
        [(status.value, status.label) for status in OPEN],
        help_text="waiting: for the order to be known at the venue; pending, submitting: it is being sent; sent: the "
        "venue has it; unconfirmed: the venue is being asked what came of it.",
    )
    attempts = serializers.IntegerField(help_text="How many times it was claimed to be sent.")
    since = serializers.DateTimeField()


class OrderSerializer(serializers.Serializer[Any]):
    """An order in its present state."""

    id = serializers.UUIDField()
    client_order_id = serializers.CharField()
    status = serializers.ChoiceField(Status.choices)
    venue = serializers.CharField(source="venue_id")
    instrument = serializers.CharField()
    side = serializers.ChoiceField(Side.choices)
    type = serializers.ChoiceField(OrderType.choices)
    quantity = QuantityField()
    limit_price = PriceField(allow_null=True)
    stop_price = PriceField(allow_null=True)
    time_in_force = serializers.ChoiceField(TimeInForce.choices)
    expires_at = serializers.DateTimeField(allow_null=True)
    place_by = serializers.DateTimeField(allow_null=True)
    venue_order_id = serializers.CharField(allow_blank=True, help_text="Empty until the venue acknowledged it.")
    attempts = serializers.IntegerField(source="attempt", help_text="How many times it was claimed to be sent.")
    next_attempt_at = serializers.DateTimeField(allow_null=True)
    last_error = serializers.CharField(
        allow_blank=True,
        help_text="Empty, or a code, a colon and a sentence on why it is not placed. The codes are "
        f"{', '.join(explanations.CODES)}; after the last comes the venue's own code and text.",
    )
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    placed_at = serializers.DateTimeField(allow_null=True)
    version = serializers.IntegerField(
        help_text="The number of its events so far. Of two answers the one with the higher version is the later."
    )
    filled_quantity = serializers.IntegerField(help_text="Shares executed so far (FIX 14).")
    leaves_quantity = serializers.IntegerField(
        help_text="Shares that may still be executed (FIX 151); 0 once nothing is at the venue or on its way there."
    )
    average_price = PriceField(
        allow_null=True,
        help_text="The average price of what was executed (FIX 6), rounded to 8 decimal places; null if nothing was.",
    )

    cancel_requested_at = serializers.DateTimeField(
        allow_null=True, help_text="When its venue was last to be asked to cancel it; null if it never was."
    )
    open_request = OpenRequestSerializer(
        allow_null=True, help_text="A cancel, or else a replace, that its venue has not decided; null if there is none."
    )

    def to_representation(self, order: ClientOrder) -> dict[str, Any]:
        """Written out, because iterating over the fields takes ten times as long, for every order of a page."""
        return {
            "id": order.id,
            "client_order_id": order.client_order_id,
            "status": order.status,
            "venue": order.venue_id,
            "instrument": order.instrument,
            "side": order.side,
            "type": order.type,
            "quantity": order.quantity,
            "limit_price": price_text(order.limit_price),
            "stop_price": price_text(order.stop_price),
            "time_in_force": order.time_in_force,
            "expires_at": order.expires_at,
            "place_by": order.place_by,
            "venue_order_id": order.venue_order_id,
            "attempts": order.attempt,
            "next_attempt_at": order.next_attempt_at,
            "last_error": explanations.last_error(order.status, order.last_error),
            "created_at": order.created_at,
            "updated_at": order.updated_at,
            "placed_at": order.placed_at,
            "version": order.version,
            "filled_quantity": order.filled_quantity,
            "leaves_quantity": leaves_quantity(order),
            "average_price": price_text(average_price(order.filled_value, order.filled_quantity)),
            "cancel_requested_at": order.cancel_requested_at,
            "open_request": order.open_request,
        }


@extend_schema_serializer(many=False)  # otherwise a list's answer is described as an array
class OrderPageSerializer(serializers.Serializer[Any]):
    """A page of a client's orders, and where the next page is."""

    next = serializers.URLField(allow_null=True, help_text="The next page; null on the last.")
    next_cursor = serializers.CharField(allow_null=True, help_text="The same, for the parameter `cursor`.")
    results = OrderSerializer(many=True)


@extend_schema_field({"$ref": "#/components/schemas/Problem"})
class ProblemField(serializers.DictField):
    """A problem document."""


class OutcomeSerializer(serializers.Serializer[Any]):
    """What became of one order of a batch."""

    status = serializers.IntegerField(help_text="As for a single order: 201 stored, 200 stored before, 4xx refused.")
    order = OrderSerializer(required=False, help_text="The order, if it is stored.")
    problem = ProblemField(required=False, help_text="The problem, if it was refused.")


class OrderBatchSerializer(serializers.Serializer[Any]):
    results = OutcomeSerializer(many=True, help_text="One for each order, in the same sequence.")


class OrderEventSerializer(serializers.Serializer[Any]):
    """One step of an order's history."""

    sequence = serializers.IntegerField()
    event = serializers.CharField()
    from_status = serializers.CharField(allow_blank=True, help_text="Empty at the first step.")
    to_status = serializers.ChoiceField(Status.choices)
    attempt = serializers.IntegerField()
    by = serializers.SerializerMethodField(help_text="A client, an operator, the system or a venue.")
    reason = serializers.SerializerMethodField(help_text="A sentence; for a rejection, the venue's own code and text.")
    at = serializers.DateTimeField()

    @extend_schema_field({"type": "string", "enum": ["client", "operator", "system", "venue"]})
    def get_by(self, event: OrderEvent) -> str:
        """The kind of actor. A client does not see which of our people or machines it was."""
        return event.actor.partition(":")[0]

    def get_reason(self, event: OrderEvent) -> str:
        return explanations.reason(event.event, event.actor, event.reason)


class OrderListQuerySerializer(KnownFieldsSerializer):
    """The parameters of a list of orders."""

    status = serializers.CharField(required=False)
    side = ChoiceField(Side.choices, required=False)
    type = ChoiceField(OrderType.choices, required=False)
    instrument = serializers.RegexField(
        r"\A[A-Z0-9]{12}\Z", required=False, error_messages={"invalid": "12 characters A-Z 0-9 are required."}
    )
    venue = serializers.RegexField(
        r"\A[A-Z0-9]{4}\Z",
        required=False,
        error_messages={"invalid": "A venue's code is required, four characters A-Z 0-9. GET /api/v1/venues has them."},
    )
    client_order_id = ClientOrderIdField(
        required=False, help_text="The order's, or that of a request of yours to replace or cancel it."
    )
    created_from = QueryMomentField(required=False, help_text="Created at this time or later.")
    created_before = QueryMomentField(required=False, help_text="Created before this time.")
    ordering = ChoiceField(["-created_at", "created_at"], default="-created_at")
    limit = serializers.IntegerField(default=50, min_value=1, max_value=500, help_text="Orders on a page.")
    cursor = serializers.CharField(required=False, max_length=200, help_text="`next_cursor` of the page before.")

    def validate_status(self, value: str) -> list[str]:
        chosen = value.split(",")
        if unknown := [status for status in chosen if status not in Status.values]:
            raise serializers.ValidationError(
                f"Unknown: {', '.join(unknown)[:100]}. Allowed are: {', '.join(Status.values)}.", "invalid_choice"
            )
        return chosen
