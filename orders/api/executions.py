"""Executions and positions over HTTP, read-only: a client's own."""

from collections.abc import Mapping
from typing import Any, cast

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema, extend_schema_serializer
from rest_framework import serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from orders.api.fields import ChoiceField, PriceField, QueryMomentField, price_text
from orders.api.pagination import ExecutionCursor
from orders.api.queries import decoded, next_page, validated_query
from orders.executions import Held, Trade, page_of_executions, page_of_positions
from orders.models import Side
from quiktrade.api.serializers import KnownFieldsSerializer
from quiktrade.auth.scopes import Scope
from quiktrade.decimals import decimal_text

MOST_ON_A_PAGE = 500
LINK_HELP = "The next page; null on the last."
CURSOR_HELP = "`next_cursor` of the page before."


def _instrument(**more: Any) -> serializers.RegexField:
    return serializers.RegexField(
        r"\A[A-Z0-9]{12}\Z",
        required=False,
        error_messages={"invalid": "12 characters A-Z 0-9 are required."},
        **more,
    )


def _venue() -> serializers.RegexField:
    return serializers.RegexField(
        r"\A[A-Z0-9]{4}\Z",
        required=False,
        error_messages={"invalid": "A venue's code is required, four characters A-Z 0-9. GET /api/v1/venues has them."},
    )


class ExecutionSerializer(serializers.Serializer[Any]):
    """One execution of an order."""

    execution_id = serializers.CharField(help_text="The venue's own id of it (FIX 17), unique there.")
    venue = serializers.CharField()
    order_id = serializers.UUIDField()
    client_order_id = serializers.CharField()
    instrument = serializers.CharField()
    side = serializers.ChoiceField(Side.choices)
    quantity = serializers.IntegerField()
    price = PriceField()
    corrects = serializers.CharField(
        allow_null=True, help_text="The `execution_id` that this one replaces, at another quantity or price."
    )
    busted_by = serializers.CharField(allow_null=True, help_text="By what the venue took it back; null: it did not.")
    corrected_by = serializers.CharField(
        allow_null=True, help_text="By which execution the venue replaced it; null: it did not."
    )
    executed_at = serializers.DateTimeField(help_text="When the venue says that it was made (FIX 60).")
    recorded_at = serializers.DateTimeField(help_text="When QuikTrade stored it.")

    def to_representation(self, trade: Trade) -> dict[str, Any]:
        """Written out, as an order's is."""
        return {
            "execution_id": trade.execution_id,
            "venue": trade.venue_id,
            "order_id": trade.order_id,
            "client_order_id": trade.client_order_id,
            "instrument": trade.instrument,
            "side": trade.side,
            "quantity": trade.quantity,
            "price": price_text(trade.price),
            "corrects": trade.corrects or None,
            "busted_by": trade.busted_by,
            "corrected_by": trade.corrected_by,
            "executed_at": trade.executed_at,
            "recorded_at": trade.recorded_at,
        }


@extend_schema_serializer(many=False)  # otherwise a list's answer is described as an array
class ExecutionPageSerializer(serializers.Serializer[Any]):
    """A page of executions, and where the next page is."""

    next = serializers.URLField(allow_null=True, help_text=LINK_HELP)
    next_cursor = serializers.CharField(allow_null=True, help_text="The same, for the parameter `after`.")
    results = ExecutionSerializer(many=True)


class PageQuerySerializer(KnownFieldsSerializer):
    """The parameters of an order's executions."""

    ordering = ChoiceField(["-executed_at", "executed_at"], default="-executed_at")
    limit = serializers.IntegerField(default=50, min_value=1, max_value=MOST_ON_A_PAGE, help_text="On a page.")
    after = serializers.CharField(required=False, max_length=200, help_text=CURSOR_HELP)


class ExecutionListQuerySerializer(PageQuerySerializer):
    """The parameters of a list of executions."""

    instrument = _instrument()
    venue = _venue()

    def get_fields(self) -> dict[str, Any]:
        """With those whose names Python does not take for an attribute."""
        start = QueryMomentField(required=False, help_text="Executed at this time or later.")
        end = QueryMomentField(required=False, help_text="Executed before this time.")
        return {**super().get_fields(), "from": start, "to": end}


EXECUTION, LIST_QUERY, PAGE_QUERY = ExecutionSerializer(), ExecutionListQuerySerializer(), PageQuerySerializer()
ORDERING = OpenApiParameter(
    "ordering",
    {
        "type": "string",
        "enum": ["-executed_at", "executed_at"],
        "default": "-executed_at",
        "x-enum-varnames": ["NEWEST_FIRST", "OLDEST_FIRST"],
    },
    description="By the time of execution: the newest first, or the oldest.",
)
_EXECUTED: dict[str, Any] = {
    "execution_id": "X-4711",
    "venue": "XSIM",
    "order_id": "019a1c2e-7b1f-7c3d-9a55-0242ac120002",
    "client_order_id": "desk-7-000123",
    "instrument": "US0378331005",
    "side": "buy",
    "quantity": 40,
    "price": "187.45",
    "corrects": None,
    "busted_by": None,
    "corrected_by": None,
    "executed_at": "2026-01-31T09:30:00.250117Z",
    "recorded_at": "2026-01-31T09:30:00.251342Z",
}
EXECUTED = OpenApiExample(
    "One execution", value={"next": None, "next_cursor": None, "results": [_EXECUTED]}, response_only=True
)


def executions_page(request: Request, query: Mapping[str, Any], filters: Mapping[str, Any]) -> Response:
    """The answer with a page of the executions of whoever asks."""
    limit = query["limit"]
    page = page_of_executions(
        cast(int, request.user.pk),
        filters,
        after=decoded("after", query.get("after"), ExecutionCursor.decode),
        newest_first=query["ordering"] == "-executed_at",
        limit=limit + 1,
    )
    cursor = ExecutionCursor.of(page[limit - 1]).encode() if len(page) > limit else None
    results = [EXECUTION.to_representation(trade) for trade in page[:limit]]
    link = next_page(request, "after", cursor) if cursor else None
    return Response({"next": link, "next_cursor": cursor, "results": results})


class ExecutionViewSet(viewsets.GenericViewSet[Any]):
    """A client's own executions, of all its orders."""

    serializer_class = ExecutionSerializer
    pagination_class = None
    required_scopes = {"list": Scope.READ}

    @extend_schema(
        summary="List your executions",
        description=(
            "A page of what was executed of your orders, by the time of execution. One that the venue took back or "
            "corrected stays in the list, with `busted_by` or `corrected_by`, and counts no more; the correction is "
            "an execution of its own, with `corrects`. To hear of executions as they come, follow the events of your "
            "orders: this list is for looking back, and one that is reported late has its place among those of its "
            "time."
        ),
        parameters=[ExecutionListQuerySerializer, ORDERING],
        responses=ExecutionPageSerializer,
        examples=[EXECUTED],
    )
    def list(self, request: Request) -> Response:
        query = validated_query(LIST_QUERY, request)
        return executions_page(
            request, query, {name: query[name] for name in ("instrument", "venue", "from", "to") if name in query}
        )


class PositionSerializer(serializers.Serializer[Any]):
    """What you hold of an instrument. Every number is a string, and exact; only `average_cost` is rounded."""

    instrument = serializers.CharField()
    quantity = serializers.CharField(help_text="Shares that you hold; below zero, that you owe.")
    average_cost = serializers.CharField(
        allow_null=True, help_text="`cost` by `quantity`, rounded half to even to 8 places; null where that is 0."
    )
    cost = serializers.CharField(help_text="What they cost: exactly what you bought − what you sold + `realized`.")
    realized = serializers.CharField(help_text="What closing brought in, by the average-cost method.")
    bought_quantity = serializers.CharField()
    sold_quantity = serializers.CharField()
    as_of = serializers.DateTimeField(help_text="When an execution changed it last.")

    def to_representation(self, held: Held) -> dict[str, Any]:
        average = held.average_cost
        return {
            "instrument": held.instrument,
            "quantity": str(held.quantity),
            "average_cost": None if average is None else decimal_text(average),
            "cost": decimal_text(held.cost),
            "realized": decimal_text(held.realized),
            "bought_quantity": decimal_text(held.bought_quantity),
            "sold_quantity": decimal_text(held.sold_quantity),
            "as_of": held.as_of,
        }


@extend_schema_serializer(many=False)
class PositionPageSerializer(serializers.Serializer[Any]):
    """A page of positions, and where the next page is."""

    next = serializers.URLField(allow_null=True, help_text=LINK_HELP)
    next_cursor = serializers.CharField(allow_null=True, help_text="The same, for the parameter `after`.")
    results = PositionSerializer(many=True)


class PositionListQuerySerializer(KnownFieldsSerializer):
    """The parameters of a list of positions."""

    venue = _venue()
    limit = serializers.IntegerField(default=MOST_ON_A_PAGE, min_value=1, max_value=MOST_ON_A_PAGE)
    after = _instrument(help_text=CURSOR_HELP)


POSITION, POSITION_QUERY = PositionSerializer(), PositionListQuerySerializer()
HELD = OpenApiExample(
    "One position",
    value={
        "next": None,
        "next_cursor": None,
        "results": [
            {
                "instrument": "US0378331005",
                "quantity": "150",
                "average_cost": "11",
                "cost": "1650",
                "realized": "100",
                "bought_quantity": "200",
                "sold_quantity": "50",
                "as_of": "2026-01-31T09:30:00.251342Z",
            }
        ],
    },
    response_only=True,
)


class PositionViewSet(viewsets.GenericViewSet[Any]):
    """A client's own positions."""

    serializer_class = PositionSerializer
    pagination_class = None
    required_scopes = {"list": Scope.READ}

    @extend_schema(
        summary="List your positions",
        description=(
            "What you hold of each instrument that you traded, as it follows from your executions alone, added up over "
            "venues or at the one `venue`. Each venue's position is kept by itself: what is bought at one venue and "
            "sold at another closes nothing."
        ),
        parameters=[PositionListQuerySerializer],
        responses=PositionPageSerializer,
        examples=[HELD],
    )
    def list(self, request: Request) -> Response:
        query = validated_query(POSITION_QUERY, request)
        limit = query["limit"]
        page = page_of_positions(
            cast(int, request.user.pk), venue=query.get("venue"), after=query.get("after"), limit=limit + 1
        )
        cursor = page[limit - 1].instrument if len(page) > limit else None
        results = [POSITION.to_representation(held) for held in page[:limit]]
        link = next_page(request, "after", cursor) if cursor else None
        return Response({"next": link, "next_cursor": cursor, "results": results})
