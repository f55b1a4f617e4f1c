"""Fields that take a JSON value of the one right type, and say which that is."""

import re
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from orders.models import CLIENT_ORDER_ID_PATTERN
from quiktrade.decimals import decimal_text

PRICE_DIGITS, PRICE_DECIMALS = 18, 8
PRICE_PATTERN = r"^(?=.*[1-9])0*[0-9]{1,10}(\.[0-9]{1,8}0*)?$"
"""The pattern of a price in a string, for the OpenAPI document: above zero; leading and trailing zeros are allowed."""
PRICE_LENGTH = 61
PRICE_HELP = "A string of up to 10 digits before the point and 8 after it, above zero; a JSON number will do."
LARGEST_QUANTITY = 10**12


class TextField(serializers.CharField):
    """A JSON string, taken as it is: numbers are not converted, and spaces are not stripped."""

    default_error_messages = {"invalid": "A JSON string is required."}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        if data.isspace() and not self.allow_blank:
            self.fail("blank")
        return str(data)

    def run_validators(self, value: str) -> None:
        # The two validators of every text field look only for characters outside printable ASCII.
        if len(self.validators) > 2 or not (value.isascii() and value.isprintable()):
            super().run_validators(value)


class ChoiceField(serializers.ChoiceField):
    """One of a few strings. The error lists them, and repeats nothing of what was sent."""

    default_error_messages = {
        "invalid_choice": "Allowed are: {allowed}.",
        "letter_case": "Allowed are: {allowed}; in lower case.",
    }

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, str) and data in self.choices:
            return data
        known = isinstance(data, str) and data.lower() in self.choices
        message = self.error_messages["letter_case" if known else "invalid_choice"]
        raise serializers.ValidationError(message.format(allowed=", ".join(self.choices)), "invalid_choice")


class FlagField(serializers.BooleanField):
    """A JSON true or false. Words and numbers that could mean one of them are refused, because a guess may be wrong."""

    default_error_messages = {"invalid": "true or false is required, without quotes."}

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid")
        return data


@extend_schema_field({"type": "string", "pattern": f"^{CLIENT_ORDER_ID_PATTERN}$"})
class ClientOrderIdField(TextField):
    """A client's own id of an order."""

    default_error_messages = {"invalid": "1 to 64 characters A-Z a-z 0-9 . _ : - are required."}
    _PATTERN = re.compile(CLIENT_ORDER_ID_PATTERN)

    def to_internal_value(self, data: Any) -> str:
        value = super().to_internal_value(data)
        if not self._PATTERN.fullmatch(value):
            self.fail("invalid")
        return value


_INSTRUMENT_PATTERN = "^[A-Z]{2}[A-Z0-9]{9}[0-9]$" if settings.ORDER_ISIN_CHECK else "^[A-Z0-9]{12}$"


@extend_schema_field({"type": "string", "pattern": _INSTRUMENT_PATTERN})
class InstrumentField(TextField):
    """An ISIN, or a venue's own code of the same length: `ORDER_ISIN_CHECK` says which."""


@extend_schema_field({"type": "string", "pattern": "^[A-Z0-9]{4}$"})
class VenueCodeField(TextField):
    """A market identifier code (ISO 10383)."""


class QuantityField(serializers.IntegerField):
    """Whole shares: a JSON number without a point or an exponent."""

    default_error_messages = {"invalid": "A whole number is required, without quotes, decimal point or exponent."}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=1, max_value=LARGEST_QUANTITY, **kwargs)

    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, int) or isinstance(data, bool):
            self.fail("invalid")
        return int(data)

    def run_validators(self, value: int) -> None:
        if not 1 <= value <= LARGEST_QUANTITY:  # otherwise no validator fails
            super().run_validators(value)


@extend_schema_field({"type": "string", "format": "decimal", "pattern": PRICE_PATTERN, "maxLength": PRICE_LENGTH})
class PriceField(serializers.DecimalField):
    """A JSON number or a string of digits, above zero; answered as a string, so that no reader rounds it."""

    default_error_messages = {
        "invalid": 'A price is required, as a number or as a string of digits such as "10.25".',
        "not_positive": "A price above zero is required.",
    }
    _DIGITS = re.compile(r"[0-9]{1,30}(\.[0-9]{1,30})?", re.ASCII)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_digits=PRICE_DIGITS, decimal_places=PRICE_DECIMALS, normalize_output=True, **kwargs)

    def to_internal_value(self, data: Any) -> Decimal:
        if isinstance(data, bool) or not isinstance(data, str | int | Decimal):
            self.fail("invalid")
        if isinstance(data, str) and not self._DIGITS.fullmatch(data):
            self.fail("invalid")
        if isinstance(data, int) and abs(data) >= 10**PRICE_DIGITS:
            self.fail("max_digits", max_digits=self.max_digits)
        try:
            price = self.validate_precision(Decimal(data))
        except serializers.ValidationError:
            price = self.validate_precision(_without_zeros(Decimal(data)))
        if price <= 0:
            self.fail("not_positive")
        return price


_SMALLEST_STEP = Decimal(1).scaleb(-PRICE_DECIMALS)
_EXACT = Context(prec=61, traps=[Inexact, InvalidOperation])


def _without_zeros(price: Decimal) -> Decimal:
    """The price without the digits beyond PRICE_DECIMALS if they are all zeros; otherwise unchanged."""
    exponent = price.as_tuple().exponent
    with suppress(Inexact, InvalidOperation):
        if isinstance(exponent, int) and exponent < -PRICE_DECIMALS:
            return price.quantize(_SMALLEST_STEP, context=_EXACT)
    return price


def price_text(price: Decimal | None) -> str | None:
    """A price as the API returns it: without trailing zeros, never with an exponent."""
    return None if price is None else decimal_text(price)


class MomentField(serializers.DateTimeField):
    """A time as in RFC 3339. One without an offset is refused: it would mean something else on every machine."""

    default_error_messages = {
        "invalid": "A time such as 2030-01-31T09:30:00Z is required, with Z or an offset such as +02:00."
    }

    def to_internal_value(self, value: Any) -> datetime:
        if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
            self.fail("invalid")
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except ValueError:  # the 30th of February, the year 0
            self.fail("invalid")
        except OverflowError:  # in UTC it is before the year 1, or after 9999
            self.fail("overflow")


_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII
)
"""`date-time` of RFC 3339, section 5.6, without leap seconds: our clocks have none, so a time that looks like one is a
mistake. Digits beyond the microsecond are accepted and ignored."""


class QueryMomentField(MomentField):
    """A time in a query, where a + that is not escaped arrives as a blank."""

    default_error_messages = {
        "blank_for_plus": "There is a blank where the offset's + must be. In a query a + is written %2B; or use Z."
    }
    _BLANK = re.compile(r".*T.* \d\d:\d\d", re.ASCII)

    def to_internal_value(self, value: Any) -> Any:
        if isinstance(value, str) and self._BLANK.fullmatch(value):
            raise serializers.ValidationError(self.error_messages["blank_for_plus"], "invalid")
        return super().to_internal_value(value)
