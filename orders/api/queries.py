"""Reads the parameters of a query, and names what is wrong with them."""

from collections.abc import Callable, Container
from typing import Any, TypeVar, cast

from rest_framework import serializers
from rest_framework.request import Request

Place = TypeVar("Place")


def validated_query(
    serializer: serializers.Serializer[Any], request: Request, *, lists: Container[str] = ()
) -> dict[str, Any]:
    """The parameters of the request's query. Of `lists` each may be given more than once."""
    given = dict(request.query_params.lists())
    if repeated := {name: len(values) for name, values in given.items() if len(values) > 1 and name not in lists}:
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


def decoded(parameter: str, text: str | None, decode: Callable[[str], Place]) -> Place | None:
    """The place in a list that a cursor stands for."""
    if text is None:
        return None
    try:
        return decode(text)
    except ValueError:
        raise serializers.ValidationError(
            {f"query:{parameter}": "Not a cursor; take the next link of a page as it is."}, "invalid_cursor"
        ) from None


def next_page(request: Request, parameter: str, cursor: str) -> str:
    """The address of the page behind a cursor, with all other parameters as they are."""
    parameters = request.query_params.copy()
    parameters[parameter] = cursor
    return request.build_absolute_uri(f"{request.path}?{parameters.urlencode()}")
