"""Reads JSON from clients strictly: exact numbers, no repeated names, bounded size."""

import codecs
import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import IO, Any

from django.conf import settings
from rest_framework import status
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import BaseParser

DRAIN_LIMIT = 16 * 1024 * 1024
"""An oversized body is read to its end, up to this many bytes, so that the client gets to read the refusal."""

LONGEST_NAME = 64
"""A name from a body is quoted up to this length."""


class PayloadTooLarge(APIException):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "payload_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body is larger than the {limit} bytes that are taken here.")


class _NotTaken(ValueError):
    """The text is refused although Python's decoder would accept it; the message says why."""


class StrictJSONParser(BaseParser):
    """Numbers with a point or an exponent become Decimal: no price ever passes through a float.

    It refuses NaN and Infinity, a name given twice in one object, nesting too deep to read, and more bytes than the
    view's `max_body_bytes`, or `API_MAX_BODY_BYTES` if it has none.
    """

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        view = parser_context["view"] if parser_context else None
        limit: int = getattr(view, "max_body_bytes", settings.API_MAX_BODY_BYTES)
        try:
            body = stream.read(limit + 1)
        except OSError:
            raise ParseError("The body did not arrive in full.") from None
        if len(body) > limit:
            left = DRAIN_LIMIT
            while left > 0 and (chunk := stream.read(65_536)):
                left -= len(chunk)
            raise PayloadTooLarge(limit)
        return self.read(body)

    def read(self, body: bytes) -> Any:
        if body.startswith(codecs.BOM_UTF8):
            raise ParseError("The body begins with a byte-order mark (EF BB BF). Send JSON without one.")
        try:
            return _DECODER.decode(body.decode("utf-8"))
        except UnicodeDecodeError:
            raise ParseError("The body is not UTF-8 text. Send JSON in UTF-8.") from None
        except RecursionError:
            raise ParseError("The body is nested too deeply.") from None
        except InvalidOperation:
            raise ParseError("The body has a number that is too large or too small to be one.") from None
        except (json.JSONDecodeError, _NotTaken) as error:
            raise ParseError(f"The body is not valid JSON: {error}") from None
        except ValueError:  # from int(), which limits the number of digits
            raise ParseError("The body has a whole number of more than 4300 digits.") from None


def _refuse_constant(name: str) -> None:
    raise _NotTaken(f"{name} is not a JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _NotTaken(f"{twice[:LONGEST_NAME]!r} is given twice")
    return result


_DECODER = json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse_constant, object_pairs_hook=_object)
