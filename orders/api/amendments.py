"""Cancels and replaces over HTTP. Each view validates, makes one call and answers with the order as it stands."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from uuid import UUID

from django.conf import settings
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from orders import amendments, selectors
from orders.amendments import MOST_CANCELS, Selection
from orders.api.fields import (
    PRICE_HELP,
    ChoiceField,
    ClientOrderIdField,
    FlagField,
    MomentField,
    PriceField,
    QuantityField,
    TextField,
)
from orders.api.idempotency import IDEMPOTENCY_KEY, REPLAYED, client_order_id_of
from orders.api.limits import limits_on
from orders.api.serializers import OrderSerializer
from orders.models import Order, Side, TimeInForce
from orders.requests import Changes
from orders.selectors import ClientOrder
from quiktrade import limits
from quiktrade.api.serializers import KnownFieldsSerializer
from quiktrade.database import durability
from quiktrade.limits import Allowance

REASON_HELP = "Kept in the order's history."
REQUEST_ID_HELP = "Your own id of this request; the Idempotency-Key header means the same."
NO_ORDER = "You have no such order."
BY_THE_CLIENT = "Asked for by the client."

ORDER_ID = OpenApiParameter("id", UUID, OpenApiParameter.PATH, description="QuikTrade's id of the order: its `id`.")


class CancelSerializer(KnownFieldsSerializer):
    """Why an order is canceled. The body may be left out."""

    reason = TextField(required=False, max_length=500, help_text=REASON_HELP)
    client_order_id = ClientOrderIdField(required=False, help_text=REQUEST_ID_HELP)


class ReplaceSerializer(KnownFieldsSerializer):
    """The terms that a working order is to have from now on. What is left out stays as it is."""

    quantity = QuantityField(required=False, help_text="The total, with what is filled already.")
    limit_price = PriceField(required=False, help_text=f"Of limit and stop_limit. {PRICE_HELP}")
    stop_price = PriceField(required=False, help_text=f"Of stop and stop_limit. {PRICE_HELP}")
    time_in_force = ChoiceField(
        [choice for choice in TimeInForce.choices if choice[0] in amendments.RESTING],
        required=False,
        help_text="A working order can be day, gtc or gtd.",
    )
    expires_at = MomentField(required=False, help_text="Of gtd; in the future.")
    reason = TextField(required=False, max_length=500, help_text=REASON_HELP)
    client_order_id = ClientOrderIdField(
        required=False, help_text=f"{REQUEST_ID_HELP} Send the request again under it: it takes effect once."
    )


class CancelManySerializer(KnownFieldsSerializer):
    """Which of your orders to cancel: those that match all that is given, or `all` of them."""

    venue = serializers.RegexField(
        r"\A[A-Z0-9]{4}\Z",
        required=False,
        error_messages={"invalid": "A venue's code is required, four characters A-Z 0-9. GET /api/v1/venues has them."},
    )
    instrument = serializers.RegexField(
        r"\A[A-Z0-9]{12}\Z", required=False, error_messages={"invalid": "12 characters A-Z 0-9 are required."}
    )
    side = ChoiceField(Side.choices, required=False)
    client_order_ids = serializers.ListField(
        child=ClientOrderIdField(), required=False, min_length=1, max_length=MOST_CANCELS
    )
    all = FlagField(required=False, help_text="true, and nothing else: all of your orders.")
    reason = TextField(required=False, max_length=500, help_text="Kept in the history of each order.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        chosen = attrs.keys() - {"reason", "all"}
        if attrs.get("all") and chosen:
            raise serializers.ValidationError({"all": "Give it alone, or leave it out."}, "not_alone")
        if not attrs.get("all") and not chosen:
            raise serializers.ValidationError(
                "Say which orders: venue, instrument, side or client_order_ids; or all: true for all of yours.", "empty"
            )
        return attrs


class CanceledManySerializer(serializers.Serializer[Any]):
    """What became of the orders that matched. Those that have ended are not counted."""

    requested = serializers.IntegerField(help_text="Orders whose venues are asked now to cancel them.")
    canceled = serializers.IntegerField(help_text="Orders of which nothing was at a venue: they are canceled.")
    already = serializers.IntegerField(help_text="Orders of which a cancel was asked for before and is not decided.")
    more = serializers.BooleanField(help_text=f"More may match than the {MOST_CANCELS} of one request: send it again.")


REPLACE = OpenApiExample("Less, at another price", value={"quantity": 80, "limit_price": "187.75"}, request_only=True)
MANY = OpenApiExample(
    "All sell orders in a share", value={"instrument": "US0378331005", "side": "sell"}, request_only=True
)
MANY_CANCELED = OpenApiExample(
    "Most of them were at the venue",
    value={"requested": 41, "canceled": 2, "already": 0, "more": False},
    response_only=True,
    status_codes=["202"],
)

# Made once, as in orders.api.views.
CANCEL_BODY, REPLACE_BODY, CANCEL_MANY_BODY = CancelSerializer(), ReplaceSerializer(), CancelManySerializer()
ORDER = OrderSerializer()


@contextmanager
def _stored() -> Iterator[None]:
    """An archived order may be removed for good after it was found."""
    try:
        yield
    except Order.DoesNotExist:
        raise NotFound(NO_ORDER) from None


class AmendmentViews(viewsets.GenericViewSet[Order]):
    """The views of orders that ask for them to be canceled or replaced."""

    @property
    def owner_id(self) -> int:
        return cast(int, self.request.user.pk)

    @property
    def actor(self) -> str:
        return f"client:{self.request.user.get_username()}"

    @property
    def allowance(self) -> Allowance | None:
        """How many orders the client may send."""
        return limits.ORDERS.of(self.request.user)

    def order(self) -> ClientOrder:
        """The client's own order that the path names; any other is answered as if it did not exist."""
        try:
            order_id = UUID(self.kwargs["pk"])
        except ValueError:
            raise NotFound("The order id in the path is not a UUID.") from None
        order = selectors.order_of(self.owner_id, order_id)
        if order is None:
            raise NotFound(NO_ORDER)
        return order

    @extend_schema(
        summary="Cancel an order",
        description=(
            "200: nothing of the order was at its venue, and it is canceled. 202: the venue is asked to cancel it, "
            "and `open_request` shows how that stands; the order is not canceled before the venue says so, and may "
            "still be filled. An order that may be at the venue is asked about as soon as the venue is known to have "
            "it. 409, with the reason, for an order that has ended otherwise. Send the request again as often as you "
            "like: there is one open cancel of an order."
        ),
        parameters=[ORDER_ID, IDEMPOTENCY_KEY, REPLAYED],
        request=CancelSerializer,
        responses={
            200: OpenApiResponse(OrderSerializer, "Canceled."),
            202: OpenApiResponse(OrderSerializer, "The venue is asked to cancel it."),
        },
    )
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        order = self.order()
        values = CANCEL_BODY.run_validation(request.data)
        with _stored(), durability.durable():
            result = amendments.request_cancel(
                order.id,
                actor=self.actor,
                reason=values.get("reason") or BY_THE_CLIENT,
                client_order_id=client_order_id_of(request, values.get("client_order_id")) or "",
            )
        after = self.order()
        open_ = bool(result.requested or result.already)
        headers = {} if result.requested or result.canceled else {"Idempotency-Replayed": "true"}
        code = status.HTTP_202_ACCEPTED if open_ else status.HTTP_200_OK
        return Response(ORDER.to_representation(after), code, headers=headers)

    @extend_schema(
        summary="Replace the terms of a working order",
        description=(
            "202: the venue is asked to give the order these terms. Until it says so the order keeps its present ones, "
            "and may be filled under them; `open_request` shows how the request stands. The order's `id` and "
            "`client_order_id` never change. One replace at a time is taken, and none while a cancel is open. With a "
            "`client_order_id` of your own, or an Idempotency-Key, send the request again as often as you like. Your "
            "limit of orders counts a replace as an order."
        ),
        parameters=[ORDER_ID, IDEMPOTENCY_KEY, REPLAYED, *limits_on(200, 202)],
        request=ReplaceSerializer,
        responses={
            202: OpenApiResponse(OrderSerializer, "The venue is asked to replace it."),
            200: OpenApiResponse(OrderSerializer, "Asked for before, by a request with this id and content."),
        },
    )
    @action(detail=True, methods=["post"])
    def replace(self, request: Request, pk: str) -> Response:
        order = self.order()
        values = REPLACE_BODY.run_validation(request.data)
        reason = values.pop("reason", None) or BY_THE_CLIENT
        client_order_id = client_order_id_of(request, values.pop("client_order_id", None)) or ""
        allowance = self.allowance
        if allowance is not None:
            amendments.pay_for_replace(allowance, client_order_id)
        with _stored(), durability.durable():
            asked = amendments.request_replace(
                order.id, Changes(**values), actor=self.actor, reason=reason, client_order_id=client_order_id
            )
        body = ORDER.to_representation(self.order())
        headers = allowance.headers() if allowance is not None else {}
        if asked.replayed:
            return Response(body, status.HTTP_200_OK, headers={"Idempotency-Replayed": "true", **headers})
        return Response(body, status.HTTP_202_ACCEPTED, headers=headers)

    @extend_schema(
        operation_id="orders_cancel_many",
        summary="Cancel many orders",
        description=(
            f"Cancels those of your own orders that match all that is given, {MOST_CANCELS} at once at most, as the "
            "cancel of each would: what is not at a venue is canceled, and venues are asked about the rest. Orders "
            "that have ended are left alone. Send the request again as often as you like."
        ),
        request=CancelManySerializer,
        responses={202: CanceledManySerializer},
        examples=[MANY, MANY_CANCELED],
    )
    @action(
        detail=False,
        methods=["post"],
        url_path="cancel",
        url_name="cancel-many",
        max_body_bytes=settings.API_MAX_BATCH_BYTES,
    )
    def cancel_many(self, request: Request) -> Response:
        values = CANCEL_MANY_BODY.run_validation(request.data)
        reason, everything = values.pop("reason", None) or BY_THE_CLIENT, values.pop("all", False)
        selection = Selection(owner_id=self.owner_id, everything=everything, **values)
        with durability.durable():
            result = amendments.request_cancels(selection, actor=self.actor, reason=reason)
        counts = {name: len(getattr(result, name)) for name in ("requested", "canceled", "already")}
        return Response({**counts, "more": result.more}, status.HTTP_202_ACCEPTED)
