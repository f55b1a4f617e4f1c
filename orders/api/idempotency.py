"""The client's own id of an order or a request: in the body, or in the header Idempotency-Key."""

from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.request import Request

from orders.api.fields import ClientOrderIdField
from orders.api.serializers import CLIENT_ORDER_ID_HELP
from orders.models import CLIENT_ORDER_ID_PATTERN

CLIENT_ORDER_ID = ClientOrderIdField()

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "pattern": f'^"?{CLIENT_ORDER_ID_PATTERN}"?$'},
    OpenApiParameter.HEADER,
    description=CLIENT_ORDER_ID_HELP + "; the same as `client_order_id` in the body.",
)
REPLAYED = OpenApiParameter(
    "Idempotency-Replayed", bool, OpenApiParameter.HEADER, response=[200], description="true: stored before."
)


def client_order_id_of(request: Request, in_body: str | None) -> str | None:
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
