"""Orders over HTTP. Each view validates, makes one call and answers."""

import time
from typing import Any

from django.conf import settings
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from orders import selectors, submission
from orders.api.amendments import ORDER_ID, REPLACE, AmendmentViews
from orders.api.executions import (
    EXECUTED,
    PAGE_QUERY,
    ExecutionPageSerializer,
    PageQuerySerializer,
    executions_page,
)
from orders.api.executions import ORDERING as EXECUTIONS_ORDERING
from orders.api.fields import ClientOrderIdField
from orders.api.idempotency import IDEMPOTENCY_KEY, REPLAYED, client_order_id_of
from orders.api.limits import limits_on
from orders.api.pagination import Cursor
from orders.api.queries import decoded, next_page, validated_query
from orders.api.serializers import (
    MOST_IN_A_BATCH,
    NewOrderBatchSerializer,
    NewOrderSerializer,
    OrderBatchSerializer,
    OrderEventSerializer,
    OrderListQuerySerializer,
    OrderPageSerializer,
    OrderSerializer,
)
from orders.models import Status
from quiktrade.auth.scopes import Scope
from quiktrade.database import replica
from quiktrade.limits import RateLimited

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
    "version": 1,
    "filled_quantity": 0,
    "leaves_quantity": 100,
    "average_price": None,
    "cancel_requested_at": None,
    "open_request": None,
}
_PLACED = _ACCEPTED | {
    "status": "placed",
    "venue_order_id": "S-1",
    "attempts": 1,
    "next_attempt_at": None,
    "updated_at": "2026-01-31T09:30:00.131207Z",
    "placed_at": "2026-01-31T09:30:00.131207Z",
    "version": 3,
}
_CANCELED = _ACCEPTED | {
    "status": "canceled",
    "next_attempt_at": None,
    "updated_at": "2026-01-31T09:30:07.402118Z",
    "version": 2,
    "leaves_quantity": 0,
}
ACCEPTED = OpenApiExample("Stored, to be placed", value=_ACCEPTED, response_only=True, status_codes=["201"])
PLACED = OpenApiExample("Placed", value=_PLACED, response_only=True, status_codes=["200"])
CANCELED = OpenApiExample("Canceled", value=_CANCELED, response_only=True, status_codes=["200"])
_PENDING = _PLACED | {"version": 4, "updated_at": "2026-01-31T09:30:07.402118Z"}
_REQUEST = {
    "id": "019a1c2e-97a2-7d01-b6c4-0242ac120002",
    "kind": "cancel",
    "client_order_id": "",
    "status": "pending",
    "attempts": 0,
    "since": "2026-01-31T09:30:07.402118Z",
}
TO_BE_CANCELED = OpenApiExample(
    "Its venue is asked to cancel it",
    value=_PENDING
    | {
        "status": "pending_cancel",
        "cancel_requested_at": "2026-01-31T09:30:07.402118Z",
        "open_request": _REQUEST,
    },
    response_only=True,
    status_codes=["202"],
)
TO_BE_REPLACED = OpenApiExample(
    "Its venue is asked to replace it",
    value=_PENDING | {"status": "pending_replace", "open_request": _REQUEST | {"kind": "replace"}},
    response_only=True,
    status_codes=["202"],
)
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
OWN = "One of your own orders; any other is answered as if it did not exist."
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


@extend_schema_view(
    cancel=extend_schema(examples=[CANCELED, TO_BE_CANCELED]),
    replace=extend_schema(examples=[REPLACE, TO_BE_REPLACED]),
)
class OrderViewSet(AmendmentViews):
    """A client's own orders; any other order is answered as if it did not exist."""

    serializer_class = OrderSerializer
    lookup_value_converter = "str"
    pagination_class = None
    required_scopes = {
        **dict.fromkeys(("list", "retrieve", "events", "executions"), Scope.READ),
        **dict.fromkeys(("create", "batch", "replace"), Scope.WRITE),
        **dict.fromkeys(("cancel", "cancel_many"), Scope.CANCEL),
    }
    max_body_bytes = settings.API_MAX_BODY_BYTES
    instead_of = dict.fromkeys(("DELETE", "PUT", "PATCH"), "An order is canceled by POST /api/v1/orders/{id}/cancel.")

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
            *limits_on(200, 201),
        ],
        responses={
            201: OpenApiResponse(OrderSerializer, "Stored."),
            200: OpenApiResponse(OrderSerializer, "Stored before, by a request with this id and content."),
        },
        examples=[LIMIT_ORDER, MARKET_ORDER, GOOD_TILL_DATE, ACCEPTED, PLACED],
    )
    def create(self, request: Request) -> Response:
        values = NEW_ORDER.run_validation(request.data)
        values["client_order_id"] = client_order_id_of(request, values.get("client_order_id"))
        allowance = self.allowance
        submitted = submission.submit_order(
            submission.NewOrderRequest(**values),
            owner_id=self.owner_id,
            actor=self.actor,
            allowance=allowance,
        )
        body = ORDER.to_representation(submitted.order)
        headers = allowance.headers() if allowance is not None else {}
        if submitted.replayed:
            headers["Idempotency-Replayed"] = "true"
            return Response(body, status.HTTP_200_OK, headers=headers)
        headers["Location"] = _address(request, f"{request.path}/{submitted.order.id}")
        return Response(body, status.HTTP_201_CREATED, headers=headers)

    @extend_schema(
        summary="Submit many orders",
        description=(
            f"1 to {MOST_IN_A_BATCH} orders at the cost of a few. Each is stored or refused by itself, as a single "
            "one would be, and has its own result; those that are stored are durable and will be placed. Give each "
            "its own `client_order_id`, and the whole batch can be sent again. If you get no answer, or a 503, it is "
            "not known whether any is stored: send the batch again. A batch of n orders counts as n in your limit of "
            "orders. If that is too many now, those that are stored already have their results, and each other one a "
            "429; if there are none, the whole answer is a 429."
        ),
        request=NewOrderBatchSerializer,
        parameters=limits_on(200),
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
        allowance = self.allowance
        outcomes = submission.submit_orders(
            list(wanted.values()), owner_id=self.owner_id, actor=self.actor, allowance=allowance
        )
        if not any(isinstance(outcome, submission.Submission) for outcome in outcomes):
            for outcome in outcomes:
                if isinstance(outcome, RateLimited):
                    raise outcome
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
        headers = allowance.headers() if allowance is not None else {}
        return Response({"results": [results[index] for index in range(len(orders))]}, headers=headers)

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
        query = validated_query(LIST_QUERY, request, lists=LISTS)
        limit = query["limit"]
        page = selectors.page_of_orders(
            self.owner_id,
            {name: query[name] for name in selectors.FILTERS if name in query},
            after=decoded("cursor", query.get("cursor"), Cursor.decode),
            newest_first=query["ordering"] == "-created_at",
            limit=limit + 1,
        )
        link = cursor = None
        if len(page) > limit:
            page = page[:limit]
            cursor = Cursor.of(page[-1]).encode()
            link = next_page(request, "cursor", cursor)
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
        order = self.order()
        history = replica.read(lambda: selectors.whole_history(order.id))
        return Response(OrderEventSerializer(history, many=True).data)

    @extend_schema(
        summary="Read an order's executions",
        description="A page of what was executed of the order, as in the list of all your executions.",
        parameters=[ORDER_ID, PageQuerySerializer, EXECUTIONS_ORDERING],
        responses=ExecutionPageSerializer,
        examples=[EXECUTED],
    )
    @action(detail=True)
    def executions(self, request: Request, pk: str) -> Response:
        query = validated_query(PAGE_QUERY, request)
        return executions_page(request, query, {"order": self.order().id})


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
