"""The client's limit of orders in the answers, for the OpenAPI document."""

from drf_spectacular.utils import OpenApiParameter

from quiktrade.api.openapi import RATE_LIMIT, RATE_LIMIT_POLICY


def limits_on(*statuses: int) -> list[OpenApiParameter]:
    """The headers of answers with these statuses that say what the client may still send."""
    return [
        OpenApiParameter(name, str, OpenApiParameter.HEADER, response=list(statuses), description=description)
        for name, description in (("RateLimit", RATE_LIMIT), ("RateLimit-Policy", RATE_LIMIT_POLICY))
    ]
