"""Orders over HTTP: validate, make one call, answer."""

from typing import Any, cast
from uuid import UUID

from django.conf import settings
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema, inline_serializer
from rest_framework import serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from orders import selectors, services
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
    OrderSerializer,
)
from orders.models import Order
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
    value={"type": "market", "side": "sell", "instrument": "DE0007164600", "quantity": 25},
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
    },
    request_only=True,
)
AN_ORDER = OpenApiExample(
    "Order",
    value={
        "id": "019a1c2e-7b1f-7c3d-9a55-0242ac120002",
        "client_order_id": "desk-7-000123",
        "status": "placed",
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
        "venue_order_id": "S-1",
        "attempts": 1,
        "next_attempt_at": None,
        "last_error": "",
        "created_at": "2026-01-31T09:30:00.120450Z",
        "updated_at": "2026-01-31T09:30:00.131207Z",
        "placed_at": "2026-01-31T09:30:00.131207Z",
    },
    response_only=True,
)
BATCH = OpenApiExample(
    "Two orders",
    value={
        "orders": [
            {**LIMIT_ORDER.value, "client_order_id": "desk-7-000124"},
            {**MARKET_ORDER.value, "client_order_id": "desk-7-000125"},
        ]
    },
    request_only=True,
)
REPLAYED = OpenApiParameter(
    "Idempotency-Replayed", bool, OpenApiParameter.HEADER, response=[200], description="true: stored before."
)
LOCATION = OpenApiParameter("Location", str, OpenApiParameter.HEADER, response=[201], description="The order's URL.")

MOST_ERRORS = 1000
"""Named in the answer to a batch, shared out among the orders that have some."""

# Made once: making a serializer's fields takes longer than using them, and using them changes nothing in them.
CLIENT_ORDER_ID, LIST_QUERY = ClientOrderIdField(), OrderListQuerySerializer()
NEW_ORDER, NEW_ORDER_BATCH, ORDER = NewOrderSerializer(), NewOrderBatchSerializer(), OrderSerializer()


class OrderViewSet(viewsets.GenericViewSet[Order]):
    """A client's own orders; any other order is as good as not there."""

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
            "effect, whatever happens to us, to the venue or to this connection. Without an answer, send it again "
            "with the same `client_order_id`."
        ),
        request=NewOrderSerializer,
        parameters=[
            OpenApiParameter("Idempotency-Key", str, OpenApiParameter.HEADER, description=CLIENT_ORDER_ID_HELP),
            LOCATION,
            REPLAYED,
        ],
        responses={
            201: OpenApiResponse(OrderSerializer, "Stored."),
            200: OpenApiResponse(OrderSerializer, "Stored before, by a request with this id and content."),
        },
        examples=[LIMIT_ORDER, MARKET_ORDER, GOOD_TILL_DATE, AN_ORDER],
    )
    def create(self, request: Request) -> Response:
        values = NEW_ORDER.run_validation(request.data)
        values["client_order_id"] = _client_order_id(request, values.get("client_order_id"))
        submission = services.submit_order(
            services.NewOrderRequest(**values),
            owner_id=self.owner_id,
            actor=self.actor,
        )
        body = ORDER.to_representation(submission.order)
        if submission.replayed:
            return Response(body, status.HTTP_200_OK, headers={"Idempotency-Replayed": "true"})
        headers = {"Location": _address(request, f"{request.path}/{submission.order.id}")}
        return Response(body, status.HTTP_201_CREATED, headers=headers)

    @extend_schema(
        summary="Submit many orders",
        description=(
            f"1 to {MOST_IN_A_BATCH} orders at the price of a few. Each is stored or refused by itself, as a single "
            "one would be, and has its own result; those that are stored are durable and will be placed. Give each "
            "its own `client_order_id`, and the whole batch can be sent again. Without an answer, or with a 503, "
            "nothing is known of any: send it again."
        ),
        request=NewOrderBatchSerializer,
        responses=OpenApiResponse(OrderBatchSerializer, "Each order's own result."),
        examples=[BATCH],
    )
    @action(detail=False, methods=["post"], max_body_bytes=settings.API_MAX_BATCH_BYTES)
    def batch(self, request: Request) -> Response:
        if "HTTP_IDEMPOTENCY_KEY" in request.META:
            raise serializers.ValidationError(
                {"header:Idempotency-Key": "Not of use for a batch: give each order its own client_order_id."}
            )
        orders = NEW_ORDER_BATCH.run_validation(request.data)["orders"]
        wanted: dict[int, services.NewOrderRequest] = {}
        results: dict[int, dict[str, Any]] = {}
        wrong: dict[int, Any] = {}
        for index, order in enumerate(orders):
            try:
                values = NEW_ORDER.run_validation(order)
            except serializers.ValidationError as error:
                wrong[index] = error.detail
            else:
                wanted[index] = services.NewOrderRequest(**values)
        for index, details in wrong.items():
            results[index] = self._refused(_of_order(index, details), most_errors=max(1, MOST_ERRORS // len(wrong)))
        outcomes = services.submit_orders(list(wanted.values()), owner_id=self.owner_id, actor=self.actor)
        for index, outcome in zip(wanted, outcomes, strict=True):
            if isinstance(outcome, services.Submission):
                code = status.HTTP_200_OK if outcome.replayed else status.HTTP_201_CREATED
                results[index] = {"status": code, "order": ORDER.to_representation(outcome.order)}
            elif isinstance(outcome, services.InvalidOrder):
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
        parameters=[OrderListQuerySerializer],
        responses=inline_serializer(
            "OrderPage",
            {
                "next": serializers.URLField(allow_null=True, help_text="The next page; null on the last."),
                "results": OrderSerializer(many=True),
            },
        ),
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
        link = None
        if len(page) > limit:
            page = page[:limit]
            parameters = request.query_params.copy()
            parameters["cursor"] = Cursor.of(page[-1]).encode()
            link = request.build_absolute_uri(f"{request.path}?{parameters.urlencode()}")
        return Response({"next": link, "results": [ORDER.to_representation(order) for order in page]})

    @extend_schema(summary="Read an order", examples=[AN_ORDER])
    def retrieve(self, request: Request, pk: str) -> Response:
        return Response(ORDER.to_representation(self.order()))

    @extend_schema(summary="Read an order's history", responses=OrderEventSerializer(many=True))
    @action(detail=True)
    def events(self, request: Request, pk: str) -> Response:
        history = selectors.history(self.order().id)
        return Response(OrderEventSerializer(history, many=True).data)

    @extend_schema(
        summary="Cancel an order that has not been sent",
        description="409 with the reason for an order that is at the venue, may be there, or is final.",
        request=CancelSerializer,
        responses=OrderSerializer,
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


def _of_order(index: int, detail: Any) -> serializers.ValidationError:
    """What is wrong with one order of a batch, where it is in the body."""
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
    try:
        return cast(dict[str, Any], serializer.run_validation(request.query_params.dict()))
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
