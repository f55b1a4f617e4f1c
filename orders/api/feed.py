"""What happened to a client's orders, told by polling and on a stream of Server-Sent Events."""

import logging
import time
from collections.abc import Iterator
from typing import Any, cast

from django.db import DatabaseError, InterfaceError
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import APIException
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from orders import feed, streaming
from orders.api.queries import validated_query
from orders.feed import Cursor, Lost
from orders.models import Order, Status
from orders.streaming import Stream, hub
from quiktrade.api.renderers import FastJSONRenderer
from quiktrade.api.serializers import KnownFieldsSerializer
from quiktrade.auth.authentication import TokenAuthentication, address_of
from quiktrade.auth.clients import WrongNetwork, require_network
from quiktrade.auth.scopes import Scope
from quiktrade.database.pool import forget, give_back
from quiktrade.errors import Refusal
from quiktrade.web import live

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 15.0
"""A stream on which nothing happens says so this often, and its account is looked at again this often."""
HEARTBEAT = b":\n"
"""A comment, with no empty line behind it: some readers take one for the end of an event, and report an empty event."""
CURSOR_HELP = "The id of the last event that you have seen, or `next_cursor` of the page before."


class CursorLost(Refusal):
    """A cursor from which the feed cannot be continued."""

    status = 410
    kind = "cursor-lost"

    def __init__(self, lost: Lost) -> None:
        super().__init__(str(lost))
        self._next_cursor = str(lost.horizon)

    def members(self) -> dict[str, Any]:
        return {**super().members(), "next_cursor": self._next_cursor}


class FeedQuerySerializer(KnownFieldsSerializer):
    after = serializers.CharField(required=False, max_length=60, help_text=CURSOR_HELP)
    limit = serializers.IntegerField(
        default=100, min_value=1, max_value=feed.MOST_ON_A_PAGE, help_text="Events on a page."
    )


class StreamQuerySerializer(KnownFieldsSerializer):
    after = serializers.CharField(
        required=False, max_length=60, help_text=f"{CURSOR_HELP} The header Last-Event-ID goes before it."
    )


class FeedExecutionSerializer(serializers.Serializer[Any]):
    """The execution that an event is about."""

    execution_id = serializers.CharField(help_text="FIX 17.")
    quantity = serializers.IntegerField(help_text="0 where the venue took an execution back.")
    price = serializers.CharField(allow_null=True)
    refers_to = serializers.CharField(
        allow_blank=True, help_text="The execution that it takes back or corrects (FIX 19); otherwise empty."
    )


class FeedEventSerializer(serializers.Serializer[Any]):
    """An event of an order. Apply it if its `sequence` is higher than the one of that order you have."""

    cursor = serializers.CharField(help_text="Its place among all your events: for `after` and Last-Event-ID.")
    order_id = serializers.UUIDField()
    client_order_id = serializers.CharField()
    sequence = serializers.IntegerField(help_text="1, 2, 3 … within the order.")
    event = serializers.CharField()
    status = serializers.ChoiceField(Status.choices, help_text="The order's status from then on.")
    filled_quantity = serializers.IntegerField(help_text="FIX 14.")
    leaves_quantity = serializers.IntegerField(help_text="FIX 151: what may still be executed.")
    execution = FeedExecutionSerializer(allow_null=True)
    by = serializers.CharField(help_text="client, operator, system or venue.")
    reason = serializers.CharField(allow_blank=True)
    at = serializers.DateTimeField()


class FeedPageSerializer(serializers.Serializer[Any]):
    """Events, and where to continue."""

    results = FeedEventSerializer(many=True)
    next_cursor = serializers.CharField(help_text="For `after` of the next request, also where there are no events.")


class EventStreamRenderer(BaseRenderer):
    """Only says that a stream can be asked for: a stream is not rendered."""

    media_type = "text/event-stream"
    format = "stream"


AFTER = OpenApiParameter(
    "Last-Event-ID",
    str,
    OpenApiParameter.HEADER,
    description="The id of the last event that you have seen: you are told what came after it, and then what comes.",
)
_TOLD = {
    "cursor": "3f1c.7731.52",
    "order_id": "019a1c2e-7b1f-7c3d-9a55-0242ac120002",
    "client_order_id": "desk-7-000123",
    "sequence": 4,
    "event": "executed",
    "status": "partially_filled",
    "filled_quantity": 40,
    "leaves_quantity": 60,
    "execution": {"execution_id": "E-17", "quantity": 40, "price": "187.5", "refers_to": ""},
    "by": "venue",
    "reason": "The venue executed some or all of it.",
    "at": "2026-01-31T09:30:00.412207Z",
}
PAGE = OpenApiExample("A page", value={"results": [_TOLD], "next_cursor": "3f1c.7731.52"}, response_only=True)
FEED_QUERY, STREAM_QUERY = FeedQuerySerializer(), StreamQuerySerializer()


class FeedViewSet(viewsets.GenericViewSet[Order]):
    """The events of a client's own orders."""

    pagination_class = None
    required_scopes = {"events": Scope.READ, "stream": Scope.STREAM}
    lookup_value_converter = "str"

    @property
    def owner_id(self) -> int:
        return cast(int, self.request.user.pk)

    @extend_schema(
        summary="Read what happened to your orders",
        description=(
            "The events of all your orders behind `after`, in one sequence: none is missed and none comes twice, and "
            "each order's events are in their own sequence. Begin without `after`: the answer has no events, and a "
            "`next_cursor`. Then list your orders, and ask for what comes after that cursor. You can continue from "
            f"any cursor for {feed.KEPT.days} days. Beyond that the answer is 410, and you begin again. "
            "GET /api/v1/orders/stream tells the same at once."
        ),
        parameters=[FeedQuerySerializer],
        responses=FeedPageSerializer,
        examples=[PAGE],
    )
    @action(detail=False)
    def events(self, request: Request) -> Response:
        query = validated_query(FEED_QUERY, request)
        limit = query["limit"]
        after = _cursor(query.get("after"), "query:after")
        upto = feed.horizon()
        if after is None:
            return Response({"results": [], "next_cursor": str(upto.cursor)})
        try:
            events = feed.resume(after, upto, owner_id=self.owner_id, limit=limit)
        except Lost as lost:
            raise CursorLost(lost) from None
        results = [feed.for_client(event, upto.cluster) for event in events]
        return Response({"results": results, "next_cursor": str(feed.next_cursor(events, upto, limit=limit))})

    @extend_schema(
        summary="Follow your orders",
        description=(
            "Server-Sent Events: what happens to any of your orders, as it happens. Each `order` event has an `id` and "
            "the same data as GET /api/v1/orders/events. The first event is `start`, whose id is where you begin. With "
            "Last-Event-ID it is `resume`, and what you missed follows; or `reset`, if that cannot be told: then list "
            "your orders again, and go on from its id. A comment comes every "
            f"{HEARTBEAT_SECONDS:g} seconds if nothing else does. The stream ends when the token runs out, and is cut "
            "off if you do not read it: connect again with a valid token and the last id."
        ),
        parameters=[StreamQuerySerializer, AFTER],
        responses={(200, "text/event-stream"): OpenApiResponse(OpenApiTypes.STR, "The stream.")},
    )
    @action(detail=False, renderer_classes=[FastJSONRenderer, EventStreamRenderer])
    def stream(self, request: Request) -> HttpResponseBase:
        query = validated_query(STREAM_QUERY, request)
        after = _cursor(request.META.get("HTTP_LAST_EVENT_ID") or None, "header:Last-Event-ID")
        after = after or _cursor(query.get("after"), "query:after")
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the second keeps nginx from collecting it
        if request.method == "HEAD":
            return HttpResponse(content_type=EventStreamRenderer.media_type, headers=headers)
        lost = None
        if after is not None:
            try:
                feed.resume(after, feed.horizon(), owner_id=self.owner_id, limit=1)
            except Lost as error:
                lost, after = error, None
        stream = hub.open(self.owner_id, after, live.line_of(request._request))
        forget()
        return live.LiveResponse(
            _parts(stream, after, lost, request.auth, address_of(request)),
            at_end=lambda: hub.close(stream),
            content_type=EventStreamRenderer.media_type,
            headers=headers,
        )


def _cursor(text: str | None, where: str) -> Cursor | None:
    if text is None:
        return None
    try:
        return Cursor.parse(text)
    except ValueError as error:
        raise serializers.ValidationError({where: str(error)}, "invalid_cursor") from None


def _parts(stream: Stream, after: Cursor | None, lost: Lost | None, token: Any, address: str) -> Iterator[bytes]:
    """What is sent on a stream until its token runs out."""
    yield _opening(stream, after, lost)
    if after is not None:
        try:
            for events in streaming.missed(stream, after):
                give_back()
                yield b"".join(streaming.frame(event, after.cluster) for event in events)
            forget()
        except (DatabaseError, InterfaceError) as error:
            logger.warning(
                "Stream ended: the feed cannot be read", extra={"event": "stream.ended", "error": str(error).strip()}
            )
            return
    expires = token["exp"] if token is not None else float("inf")
    looked_at = time.monotonic()
    while not stream.over and (left := expires - time.time()) > 0:
        yield stream.take(min(HEARTBEAT_SECONDS, left)) or HEARTBEAT
        if token is not None and time.monotonic() - looked_at >= HEARTBEAT_SECONDS:
            looked_at = time.monotonic()
            if not _may_go_on(token, address):
                return


def _opening(stream: Stream, after: Cursor | None, lost: Lost | None) -> bytes:
    """The first event, which says from where the client is told. Its retry is in milliseconds."""
    kind = b"resume" if after else b"reset" if lost else b"start"
    cursor = str(after or stream.start)
    data = FastJSONRenderer().render({"cursor": cursor} | ({"detail": str(lost)} if lost else {}))
    return b"retry: 1000\nid: %b\nevent: %b\ndata: %b\n\n" % (cursor.encode(), kind, data)


def _may_go_on(token: Any, address: str) -> bool:
    """Whether the account may still use the API from there. While the database is away, nothing is known against it."""
    try:
        require_network(getattr(TokenAuthentication().get_user(token), "networks", ""), address)
    except (APIException, WrongNetwork):
        return False
    except (DatabaseError, InterfaceError):
        pass
    finally:
        forget()
    return True
