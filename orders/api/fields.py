"""Fields that take a JSON value of the one right type, and say which that is."""

import re
from decimal import Decimal
from typing import Any

from rest_framework import serializers

from orders.models import CLIENT_ORDER_ID_PATTERN
from quiktrade.decimals import decimal_text

PRICE_DIGITS, PRICE_DECIMALS = 18, 8
LARGEST_QUANTITY = 10**12


class TextField(serializers.CharField):
    """A JSON string, as it is: a number is not made into one, spaces are not cut off."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return str(data)

    def run_validators(self, value: str) -> None:
        # The two that every text field has look for characters that are none of these.
        if len(self.validators) > 2 or not (value.isascii() and value.isprintable()):
            super().run_validators(value)


class ClientOrderIdField(TextField):
    """A client's own id of an order."""

    default_error_messages = {"invalid": "1 to 64 characters A-Z a-z 0-9 . _ : - are required."}
    _PATTERN = re.compile(CLIENT_ORDER_ID_PATTERN)

    def to_internal_value(self, data: Any) -> str:
        value = super().to_internal_value(data)
        if not self._PATTERN.fullmatch(value):
            self.fail("invalid")
        return value


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
        if not 1 <= value <= LARGEST_QUANTITY:  # else they have nothing to say
            super().run_validators(value)


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
        price = self.validate_precision(Decimal(data))
        if price <= 0:
            self.fail("not_positive")
        return price


def price_text(price: Decimal | None) -> str | None:
    """A price as it is answered: without zeros that say nothing, never with an exponent."""
    return None if price is None else decimal_text(price)


class MomentField(serializers.DateTimeField):
    """An RFC 3339 time that says its offset: a time without one means something else on every machine."""

    default_error_messages = {
        "invalid": "A time such as 2030-01-31T09:30:00Z is required, with Z or an offset such as +02:00."
    }
    _OFFSET = re.compile(r".*T.*(Z|[+-]\d\d:\d\d)", re.ASCII)

    def to_internal_value(self, value: Any) -> Any:
        if not isinstance(value, str) or not self._OFFSET.fullmatch(value):
            self.fail("invalid")
        return super().to_internal_value(value)
