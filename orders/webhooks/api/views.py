"""Webhooks over HTTP: a client's own. Each view validates, makes one call and answers."""

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

from orders.api.queries import validated_query
from orders.webhook_models import WebhookEndpoint
from orders.webhooks import services
from orders.webhooks.api.serializers import (
    NewWebhookSerializer,
    WebhookChangeSerializer,
    WebhookDeliveryPageSerializer,
    WebhookDeliveryQuerySerializer,
    WebhookDeliverySerializer,
    WebhookDisableSerializer,
    WebhookReplayedSerializer,
    WebhookReplaySerializer,
    WebhookRotateSerializer,
    WebhookSerializer,
    WebhookWithSecretSerializer,
)
from quiktrade.auth.scopes import Scope
from quiktrade.database import replica

NEW = OpenApiExample(
    "Executions and ends",
    value={
        "url": "https://example.com/quiktrade",
        "event_types": ["order.executed", "order.canceled_at_venue", "order.rejected_by_venue"],
        "description": "desk 7",
    },
    request_only=True,
)
CHANGE = OpenApiExample("All types", value={"event_types": []}, request_only=True)
REPLAY = OpenApiExample(
    "An hour", value={"from": "2026-01-31T09:00:00Z", "to": "2026-01-31T10:00:00Z"}, request_only=True
)
WEBHOOK_ID = OpenApiParameter("id", UUID, OpenApiParameter.PATH, description="The webhook's `id`.")
DELIVERY_ID = OpenApiParameter("delivery_id", int, OpenApiParameter.PATH, description="The delivery's `id`.")
LOCATION = OpenApiParameter(
    "Location", OpenApiTypes.URI, OpenApiParameter.HEADER, response=[201], description="The webhook's URL."
)
OWN = "One of your own webhooks; any other is answered as if it did not exist."


class WebhookViewSet(viewsets.GenericViewSet[WebhookEndpoint]):
    """A client's own webhooks; any other is answered as if it did not exist."""

    serializer_class = WebhookSerializer
    lookup_value_converter = "str"
    pagination_class = None
    required_scopes = dict.fromkeys(
        (
            *("create", "list", "retrieve", "partial_update", "destroy", "disable", "enable", "rotate", "test"),
            *("replay", "deliveries", "resend"),
        ),
        Scope.STREAM,  # a webhook tells what the stream tells
    )
    max_body_bytes = settings.API_MAX_BODY_BYTES
    instead_of = {"PUT": "A webhook is changed by PATCH."}

    @property
    def owner_id(self) -> int:
        return cast(int, self.request.user.pk)

    @property
    def actor(self) -> str:
        return f"client:{self.request.user.get_username()}"

    def endpoint(self) -> WebhookEndpoint:
        try:
            id_ = UUID(self.kwargs["pk"])
        except ValueError:
            raise NotFound("The webhook id in the path is not a UUID.") from None
        endpoint = services.endpoints_of(self.owner_id).filter(pk=id_).first()
        if endpoint is None:
            raise NotFound("You have no such webhook.")
        return cast(WebhookEndpoint, endpoint)

    @extend_schema(
        summary="Create a webhook",
        description=(
            "Your order events are sent to this address from now on, each as a signed POST (Standard Webhooks), at "
            "least once and in no certain order. The answer has the `secret` with which you verify them; it is not "
            f"shown again. An account may have {services.MOST_ENDPOINTS} webhooks."
        ),
        request=NewWebhookSerializer,
        parameters=[LOCATION],
        responses={201: OpenApiResponse(WebhookWithSecretSerializer, "Created.")},
        examples=[NEW],
    )
    def create(self, request: Request) -> Response:
        values = NewWebhookSerializer().run_validation(request.data)
        endpoint = services.create_endpoint(self.owner_id, **values)
        headers = {"Location": request.build_absolute_uri(f"{request.path}/{endpoint.pk}")}
        return Response(WebhookWithSecretSerializer(endpoint).data, status.HTTP_201_CREATED, headers=headers)

    @extend_schema(summary="List your webhooks", responses=WebhookSerializer(many=True))
    def list(self, request: Request) -> Response:
        own: Any = replica.read(lambda: list(services.endpoints_of(self.owner_id)))
        return Response(WebhookSerializer(own, many=True).data)

    @extend_schema(summary="Read a webhook", description=OWN, parameters=[WEBHOOK_ID])
    def retrieve(self, request: Request, pk: str) -> Response:
        return self._answer(self.endpoint())

    @extend_schema(
        summary="Change a webhook",
        description="What waits to be sent is sent to the new address.",
        parameters=[WEBHOOK_ID],
        request=WebhookChangeSerializer,
        responses=WebhookSerializer,
        examples=[CHANGE],
    )
    def partial_update(self, request: Request, pk: str) -> Response:
        endpoint = self.endpoint()
        changes = WebhookChangeSerializer().run_validation(request.data)
        return self._answer(services.change_endpoint(endpoint, changes))

    @extend_schema(
        summary="Delete a webhook",
        description="Nothing more is sent to it, and its deliveries can no longer be read.",
        parameters=[WEBHOOK_ID],
        responses={204: OpenApiResponse(description="Deleted.")},
    )
    def destroy(self, request: Request, pk: str) -> Response:
        services.delete_endpoint(self.endpoint())
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(
        summary="Disable a webhook",
        description="Nothing is sent until you enable it. What waits, waits.",
        parameters=[WEBHOOK_ID],
        request=WebhookDisableSerializer,
        responses=WebhookSerializer,
    )
    @action(detail=True, methods=["post"])
    def disable(self, request: Request, pk: str) -> Response:
        endpoint = self.endpoint()
        reason = self._body(WebhookDisableSerializer).get("reason") or services.FROM_ITS_CLIENT
        return self._answer(services.disable_endpoint(endpoint, actor=self.actor, reason=reason))

    @extend_schema(
        summary="Enable a webhook",
        description=(
            "What waited is sent, and what happens from now on; after 30 days what waited is dead letters. "
            "What happened while it was disabled is not sent by itself: replay it."
        ),
        parameters=[WEBHOOK_ID],
        request=None,
        responses=WebhookSerializer,
    )
    @action(detail=True, methods=["post"])
    def enable(self, request: Request, pk: str) -> Response:
        endpoint = self.endpoint()
        return self._answer(services.enable_endpoint(endpoint))

    @extend_schema(
        summary="Replace a webhook's secret",
        description="The answer has the new secret. For the overlap every request has two signatures.",
        parameters=[WEBHOOK_ID],
        request=WebhookRotateSerializer,
        responses=WebhookWithSecretSerializer,
    )
    @action(detail=True, methods=["post"])
    def rotate(self, request: Request, pk: str) -> Response:
        endpoint = self.endpoint()
        overlap = self._body(WebhookRotateSerializer)["overlap_hours"]
        return Response(WebhookWithSecretSerializer(services.rotate_secret(endpoint, overlap_hours=overlap)).data)

    @extend_schema(
        summary="Send a test",
        description="An event of the type webhook.test is sent; read its delivery to see what came of it.",
        parameters=[WEBHOOK_ID],
        request=None,
        responses=WebhookDeliverySerializer,
    )
    @action(detail=True, methods=["post"])
    def test(self, request: Request, pk: str) -> Response:
        endpoint = self.endpoint()
        return Response(WebhookDeliverySerializer(services.send_test(endpoint)).data)

    @extend_schema(
        summary="Send the events of a time again",
        description=(
            "All events of its types in this time are sent, whether they were sent before or not, each under the "
            f"`webhook-id` that it always has. One call takes {services.MOST_REPLAYED:,} events, the oldest first. "
            "Events of orders that were archived are not sent, and `archived` says that there may be some."
        ),
        parameters=[WEBHOOK_ID],
        request=WebhookReplaySerializer,
        responses=WebhookReplayedSerializer,
        examples=[REPLAY],
    )
    @action(detail=True, methods=["post"])
    def replay(self, request: Request, pk: str) -> Response:
        endpoint = self.endpoint()
        time = self._body(WebhookReplaySerializer)
        replayed = services.replay(endpoint, from_=time["from"], to=time["to"])
        return Response(WebhookReplayedSerializer(replayed).data)

    @extend_schema(
        summary="List a webhook's deliveries",
        description="Delivered ones are kept for 7 days, dead letters for 30.",
        parameters=[WEBHOOK_ID, WebhookDeliveryQuerySerializer],
        responses=WebhookDeliveryPageSerializer,
    )
    @action(detail=True)
    def deliveries(self, request: Request, pk: str) -> Response:
        endpoint = self.endpoint()
        query = validated_query(WebhookDeliveryQuerySerializer(), request)
        found = endpoint.deliveries.select_related("event").order_by("-id")
        if "status" in query:
            found = found.filter(status=query["status"])
        if "cursor" in query:
            found = found.filter(pk__lt=query["cursor"])
        page = replica.read(lambda: list(found[: query["limit"] + 1]))
        cursor = page[query["limit"] - 1].pk if len(page) > query["limit"] else None
        results: Any = WebhookDeliverySerializer(cast(Any, page[: query["limit"]]), many=True).data
        return Response({"next_cursor": cursor, "results": results})

    @extend_schema(
        summary="Send a delivery again",
        description="One that is delivered or dead is sent again, with all its attempts; any other is sent anyway.",
        parameters=[WEBHOOK_ID, DELIVERY_ID],
        request=None,
        responses=WebhookDeliverySerializer,
    )
    @action(detail=True, methods=["post"], url_path="deliveries/<str:delivery_id>/resend")
    def resend(self, request: Request, pk: str, delivery_id: str) -> Response:
        endpoint = self.endpoint()
        number = int(delivery_id) if delivery_id.isascii() and delivery_id.isdigit() and len(delivery_id) < 19 else None
        delivery = endpoint.deliveries.select_related("event").filter(pk=number).first() if number else None
        if delivery is None:
            raise NotFound("This webhook has no such delivery.")
        return Response(WebhookDeliverySerializer(services.resend(delivery)).data)

    def _body(self, serializer: type[serializers.Serializer[Any]]) -> dict[str, Any]:
        return cast(dict[str, Any], serializer().run_validation(self.request.data))

    @staticmethod
    def _answer(endpoint: WebhookEndpoint) -> Response:
        return Response(WebhookSerializer(endpoint).data)
