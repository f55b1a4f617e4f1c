from decimal import Decimal

import pytest

from quiktrade.decimals import decimal_text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("187.25000000", "187.25"),
        ("100.00000000", "100"),
        ("1E+2", "100"),
        ("1000", "1000"),
        ("1E-8", "0.00000001"),
        ("9999999999.99999999", "9999999999.99999999"),
        ("123456789012345678901234567890.10", "123456789012345678901234567890.1"),
        ("0.00000000", "0"),
        ("0E+3", "0"),
        ("-0.00", "0"),
        ("-1.50", "-1.5"),
    ],
)
def test_a_decimal_is_written_exactly_and_without_what_says_nothing(number: str, text: str) -> None:
    assert decimal_text(Decimal(number)) == text
