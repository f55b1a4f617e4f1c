"""Orders over HTTP. Each view validates, makes one call and answers."""

import time
from typing import Any, cast
from uuid import UUID

from django.conf import settings
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from orders import selectors, services, submission
from orders.api.fields import ClientOrderIdField
from orders.api.pagination import Cursor
from orders.api.serializers import (
    CLIENT_ORDER_ID_HELP,
    MOST_IN_A_BATCH,
    CancelSerializer,
    NewOrderBatchSerializer,
    NewOrderSerializer,
    OrderBatchSerializer,
    OrderEventSerializer,
    OrderListQuerySerializer,
    OrderPageSerializer,
    OrderSerializer,
)
from orders.models import CLIENT_ORDER_ID_PATTERN, Order, Status
from orders.selectors import ClientOrder

LIMIT_ORDER = OpenApiExample(
    "Limit order",
    value={
        "type": "limit",
        "side": "buy",
        "instrument": "US0378331005",
        "limit_price": "187.50",
        "quantity": 100,
        "client_order_id": "desk-7-000123",
    },
    request_only=True,
)
MARKET_ORDER = OpenApiExample(
    "Market order",
    value={
        "type": "market",
        "side": "sell",
        "instrument": "DE0007164600",
        "quantity": 25,
        "client_order_id": "desk-7-000124",
    },
    request_only=True,
)
GOOD_TILL_DATE = OpenApiExample(
    "Stop limit order, good till date",
    value={
        "type": "stop_limit",
        "side": "sell",
        "instrument": "US5949181045",
        "stop_price": "400",
        "limit_price": "398.5",
        "quantity": 10,
        "time_in_force": "gtd",
        "expires_at": "2030-01-31T21:00:00Z",
        "client_order_id": "desk-7-000125",
    },
    request_only=True,
)
_ACCEPTED: dict[str, Any] = {
    "id": "019a1c2e-7b1f-7c3d-9a55-0242ac120002",
    "client_order_id": "desk-7-000123",
    "status": "pending",
    "venue": "XSIM",
    "instrument": "US0378331005",
    "side": "buy",
    "type": "limit",
    "quantity": 100,
    "limit_price": "187.5",
    "stop_price": None,
    "time_in_force": "day",
    "expires_at": None,
    "place_by": None,
    "venue_order_id": "",
    "attempts": 0,
    "next_attempt_at": "2026-01-31T09:30:00.120450Z",
    "last_error": "",
    "created_at": "2026-01-31T09:30:00.120450Z",
    "updated_at": "2026-01-31T09:30:00.120450Z",
    "placed_at": None,
}
_PLACED = _ACCEPTED | {
    "status": "placed",
    "venue_order_id": "S-1",
    "attempts": 1,
    "next_attempt_at": None,
    "updated_at": "2026-01-31T09:30:00.131207Z",
    "placed_at": "2026-01-31T09:30:00.131207Z",
}
_CANCELED = _ACCEPTED | {
    "status": "canceled",
    "next_attempt_at": None,
    "updated_at": "2026-01-31T09:30:07.402118Z",
}
ACCEPTED = OpenApiExample("Stored, to be placed", value=_ACCEPTED, response_only=True, status_codes=["201"])
PLACED = OpenApiExample("Placed", value=_PLACED, response_only=True, status_codes=["200"])
CANCELED = OpenApiExample("Canceled", value=_CANCELED, response_only=True)
BATCH = OpenApiExample(
    "Two orders",
    value={
        "orders": [
            LIMIT_ORDER.value,
            MARKET_ORDER.value,
        ]
    },
    request_only=True,
)
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "pattern": f'^"?{CLIENT_ORDER_ID_PATTERN}"?$'},
    OpenApiParameter.HEADER,
    description=CLIENT_ORDER_ID_HELP + "; the same as `client_order_id` in the body.",
)
ORDER_ID = OpenApiParameter("id", UUID, OpenApiParameter.PATH, description="QuikTrade's id of the order: its `id`.")
OWN = "One of your own orders; any other is answered as if it did not exist."
REPLAYED = OpenApiParameter(
    "Idempotency-Replayed", bool, OpenApiParameter.HEADER, response=[200], description="true: stored before."
)
LOCATION = OpenApiParameter(
    "Location", OpenApiTypes.URI, OpenApiParameter.HEADER, response=[201], description="The order's URL."
)

MOST_ERRORS = 1000
"""At most this many errors in the answer to a batch, divided among the orders that have errors."""

GIVE_WAY_EVERY = 20
"""This many orders of a batch take one or two milliseconds of work."""

STATUSES = OpenApiParameter(
    "status",
    {"type": "array", "items": {"type": "string", "enum": Status.values}, "minItems": 1},
    style="form",
    explode=True,
    description="Orders with any of these statuses. For several, repeat the parameter or separate them by commas.",
)
ORDERING = OpenApiParameter(
    "ordering",
    {
        "type": "string",
        "enum": ["-created_at", "created_at"],
        "default": "-created_at",
        "x-enum-varnames": ["NEWEST_FIRST", "OLDEST_FIRST"],  # otherwise generated clients would number them
    },
    description="By the time of creation: the newest first, or the oldest.",
)
LISTS = {STATUSES.name}
"""The parameters of a query that may be given more than once."""

# These are made once: making a serializer's fields takes longer than using them, and using them does not change them.
CLIENT_ORDER_ID, LIST_QUERY = ClientOrderIdField(), OrderListQuerySerializer()
NEW_ORDER, NEW_ORDER_BATCH, ORDER = NewOrderSerializer(), NewOrderBatchSerializer(), OrderSerializer()


class OrderViewSet(viewsets.GenericViewSet[Order]):
    """A client's own orders; any other order is answered as if it did not exist."""

    serializer_class = OrderSerializer
    lookup_value_converter = "str"
    pagination_class = None
    max_body_bytes = settings.API_MAX_BODY_BYTES
    instead_of = dict.fromkeys(("DELETE", "PUT", "PATCH"), "An order is canceled by POST /api/v1/orders/{id}/cancel.")

    def order(self) -> ClientOrder:
        try:
            order_id = UUID(self.kwargs["pk"])
        except ValueError:
            raise NotFound("The order id in the path is not a UUID.") from None
        order = selectors.order_of(self.owner_id, order_id)
        if order is None:
            raise NotFound("You have no such order.")
        return order

    @property
    def owner_id(self) -> int:
        return cast(int, self.request.user.pk)

    @property
    def actor(self) -> str:
        return f"client:{self.request.user.get_username()}"

    @extend_schema(
        summary="Submit an order",
        description=(
            "Stores the order and answers at once: 201 means that it is durable and will be placed exactly once in "
            "effect, whatever happens to us, to the venue or to this connection. If you get no answer, send it again "
            "with the same `client_order_id`."
        ),
        request=NewOrderSerializer,
        parameters=[
            IDEMPOTENCY_KEY,
            LOCATION,
            REPLAYED,
        ],
        responses={
            201: OpenApiResponse(OrderSerializer, "Stored."),
            200: OpenApiResponse(OrderSerializer, "Stored before, by a request with this id and content."),
        },
        examples=[LIMIT_ORDER, MARKET_ORDER, GOOD_TILL_DATE, ACCEPTED, PLACED],
    )
    def create(self, request: Request) -> Response:
        values = NEW_ORDER.run_validation(request.data)
        values["client_order_id"] = _client_order_id(request, values.get("client_order_id"))
        submitted = submission.submit_order(
            submission.NewOrderRequest(**values),
            owner_id=self.owner_id,
            actor=self.actor,
        )
        body = ORDER.to_representation(submitted.order)
        if submitted.replayed:
            return Response(body, status.HTTP_200_OK, headers={"Idempotency-Replayed": "true"})
        headers = {"Location": _address(request, f"{request.path}/{submitted.order.id}")}
        return Response(body, status.HTTP_201_CREATED, headers=headers)

    @extend_schema(
        summary="Submit many orders",
        description=(
            f"1 to {MOST_IN_A_BATCH} orders at the cost of a few. Each is stored or refused by itself, as a single "
            "one would be, and has its own result; those that are stored are durable and will be placed. Give each "
            "its own `client_order_id`, and the whole batch can be sent again. If you get no answer, or a 503, it is "
            "not known whether any is stored: send the batch again."
        ),
        request=NewOrderBatchSerializer,
        responses=OpenApiResponse(OrderBatchSerializer, "Each order's own result."),
        examples=[BATCH],
    )
    @action(detail=False, methods=["post"], max_body_bytes=settings.API_MAX_BATCH_BYTES)
    def batch(self, request: Request) -> Response:
        if "HTTP_IDEMPOTENCY_KEY" in request.META:
            raise serializers.ValidationError(
                {"header:Idempotency-Key": "Not used for a batch: give each order its own client_order_id."}
            )
        orders = NEW_ORDER_BATCH.run_validation(request.data)["orders"]
        wanted: dict[int, submission.NewOrderRequest] = {}
        results: dict[int, dict[str, Any]] = {}
        wrong: dict[int, Any] = {}
        for index, order in enumerate(orders):
            _give_way(index)
            try:
                values = NEW_ORDER.run_validation(order)
            except serializers.ValidationError as error:
                wrong[index] = error.detail
            else:
                wanted[index] = submission.NewOrderRequest(**values)
        for index, details in wrong.items():
            results[index] = self._refused(_of_order(index, details), most_errors=max(1, MOST_ERRORS // len(wrong)))
        outcomes = submission.submit_orders(list(wanted.values()), owner_id=self.owner_id, actor=self.actor)
        for index, outcome in zip(wanted, outcomes, strict=True):
            _give_way(index)
            if isinstance(outcome, submission.Submission):
                code = status.HTTP_200_OK if outcome.replayed else status.HTTP_201_CREATED
                results[index] = {"status": code, "order": ORDER.to_representation(outcome.order)}
            elif isinstance(outcome, submission.InvalidOrder):
                detail = {outcome.field: serializers.ErrorDetail(outcome.detail, outcome.code)}
                results[index] = self._refused(_of_order(index, detail))
            else:
                results[index] = self._refused(outcome)
        return Response({"results": [results[index] for index in range(len(orders))]})

    def _refused(self, error: Exception, **more: Any) -> dict[str, Any]:
        """The result of an order that would have been answered with this error by itself."""
        answer = self.get_exception_handler()(error, {**self.get_exception_handler_context(), **more})
        assert answer is not None
        return {"status": answer.status_code, "problem": answer.data}

    @extend_schema(
        summary="List your orders",
        description=(
            "A page of your orders: newest first, with every order that is stored when the page is read. `next` is the "
            "address of the following page, and `next_cursor` its `cursor`. To follow your orders, read "
            "`ordering=created_at` from its beginning, or from a `created_from`, to the last `next`. Then continue "
            "with the `created_at` of the last order as `created_from`, which gives that order again: no order is "
            "missed. Such a page ends before an order that is just being stored, so the newest orders may only be on "
            "a later page."
        ),
        parameters=[OrderListQuerySerializer, STATUSES, ORDERING],
        responses=OrderPageSerializer,
    )
    def list(self, request: Request) -> Response:
        query = _validated_query(LIST_QUERY, request)
        limit = query["limit"]
        page = selectors.page_of_orders(
            self.owner_id,
            {name: query[name] for name in selectors.FILTERS if name in query},
            after=_cursor(query.get("cursor")),
            newest_first=query["ordering"] == "-created_at",
            limit=limit + 1,
        )
        link = cursor = None
        if len(page) > limit:
            page = page[:limit]
            parameters = request.query_params.copy()
            parameters["cursor"] = cursor = Cursor.of(page[-1]).encode()
            link = request.build_absolute_uri(f"{request.path}?{parameters.urlencode()}")
        orders = [ORDER.to_representation(order) for order in page]
        return Response({"next": link, "next_cursor": cursor, "results": orders})

    @extend_schema(summary="Read an order", description=OWN, parameters=[ORDER_ID], examples=[PLACED])
    def retrieve(self, request: Request, pk: str) -> Response:
        return Response(ORDER.to_representation(self.order()))

    @extend_schema(
        summary="Read an order's history",
        description="Every step of the order, the oldest first.",
        parameters=[ORDER_ID],
        responses=OrderEventSerializer(many=True),
    )
    @action(detail=True)
    def events(self, request: Request, pk: str) -> Response:
        history = selectors.history(self.order().id)
        return Response(OrderEventSerializer(history, many=True).data)

    @extend_schema(
        summary="Cancel an order that has not been sent",
        description=(
            "The answer is 409, with the reason, for an order that is at the venue, may be there, or is final. An "
            "order that is canceled already is returned unchanged: send the request again as often as you like."
        ),
        parameters=[ORDER_ID],
        request=CancelSerializer,
        responses=OrderSerializer,
        examples=[CANCELED],
    )
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        order = self.order()
        serializer = CancelSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        reason = serializer.validated_data.get("reason") or "Canceled by the client."
        services.cancel_order(order.id, actor=self.actor, reason=reason)
        return Response(ORDER.to_representation(self.order()))


def _address(request: Request, path: str) -> str:
    """The path with the host that was asked, which CommonMiddleware has checked."""
    host = request.META.get("HTTP_HOST")
    return f"{request.scheme}://{host}{path}" if host else path


def _give_way(index: int) -> None:
    """Let other requests continue that share this thread with a batch."""
    if index % GIVE_WAY_EVERY == 0:
        time.sleep(0)


def _of_order(index: int, detail: Any) -> serializers.ValidationError:
    """The errors of one order of a batch, with the order's position in the body."""
    return serializers.ValidationError({"orders": {str(index): detail}})


def _client_order_id(request: Request, in_body: str | None) -> str | None:
    """The id that the body or the Idempotency-Key header gives. Raises: ValidationError, where they differ."""
    header = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if header is None:
        return in_body
    try:
        # The draft standard writes it as a quoted string; most clients do not.
        in_header: str = CLIENT_ORDER_ID.run_validation(header.removeprefix('"').removesuffix('"'))
    except serializers.ValidationError as error:
        raise serializers.ValidationError({"header:Idempotency-Key": error.detail}) from None
    if in_body is not None and in_body != in_header:
        raise serializers.ValidationError(
            {"client_order_id": "It differs from the Idempotency-Key header; give one, or the same twice."}, "differs"
        )
    return in_header


def _validated_query(serializer: serializers.Serializer[Any], request: Request) -> dict[str, Any]:
    given = dict(request.query_params.lists())
    if repeated := {name: len(values) for name, values in given.items() if len(values) > 1 and name not in LISTS}:
        raise serializers.ValidationError(
            {f"query:{name}": f"Given {times} times; once is allowed." for name, times in repeated.items()}, "repeated"
        )
    try:
        return cast(
            dict[str, Any], serializer.run_validation({name: ",".join(values) for name, values in given.items()})
        )
    except serializers.ValidationError as error:
        errors = cast(dict[str, Any], error.detail)
        raise serializers.ValidationError({f"query:{name}": each for name, each in errors.items()}) from None


def _cursor(text: str | None) -> Cursor | None:
    if text is None:
        return None
    try:
        return Cursor.decode(text)
    except ValueError:
        raise serializers.ValidationError(
            {"query:cursor": "Not a cursor; take the next link of a page as it is."}, "invalid_cursor"
        ) from None
