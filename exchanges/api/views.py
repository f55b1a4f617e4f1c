"""Venues over HTTP, read-only."""

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers, viewsets
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from exchanges.directory import capabilities_if_usable
from exchanges.models import Venue

NAMES = serializers.ListField(child=serializers.CharField())


class VenueSerializer(serializers.Serializer[Any]):
    """A venue that takes orders, and what it can do."""

    code = serializers.CharField(help_text="Market identifier code (ISO 10383).")
    name = serializers.CharField()
    is_default = serializers.BooleanField(help_text="Takes the orders that name no venue.")
    halted = serializers.BooleanField(help_text="Orders are accepted and wait; none is placed until it resumes.")
    order_types = serializers.SerializerMethodField()
    times_in_force = serializers.SerializerMethodField()

    @extend_schema_field(NAMES)
    def get_order_types(self, venue: Venue) -> list[str]:
        capabilities = capabilities_if_usable(venue)
        return sorted(capabilities.order_types) if capabilities else []

    @extend_schema_field(NAMES)
    def get_times_in_force(self, venue: Venue) -> list[str]:
        capabilities = capabilities_if_usable(venue)
        return sorted(capabilities.times_in_force) if capabilities else []


class VenueViewSet(viewsets.GenericViewSet[Venue]):
    queryset = Venue.objects.filter(enabled=True)
    serializer_class = VenueSerializer
    pagination_class = None
    required_scopes = dict.fromkeys(("list", "retrieve"))  # whoever has a token may know the venues
    lookup_field = "code"
    lookup_value_converter = "str"

    @extend_schema(summary="List the venues", responses=VenueSerializer(many=True))
    def list(self, request: Request) -> Response:
        return Response(VenueSerializer(self.get_queryset(), many=True).data)

    @extend_schema(summary="Read a venue")
    def retrieve(self, request: Request, **kwargs: Any) -> Response:
        code = kwargs["code"]  # it may be any text, and a query with a NUL would be an error
        venue = self.get_queryset().filter(code=code).first() if "\0" not in code else None
        if venue is None:
            raise NotFound("There is no such venue. GET /api/v1/venues lists those that there are.")
        return Response(VenueSerializer(venue).data)
