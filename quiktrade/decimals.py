"""Decimal numbers as text, for those who must read them exactly: venues, clients and operators."""

from decimal import ROUND_HALF_EVEN, Context, Decimal


def decimal_text(number: Decimal) -> str:
    """All significant digits and no others: never an exponent, a trailing zero or a minus before zero.

    A column's `187.25000000` is 187.25: a strict venue takes eight decimal places for a price below its tick.
    """
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").removesuffix(".")
    return "0" if text == "-0" else text


def divided(number: Decimal, divisor: int, *, times: int = 1) -> Decimal:
    """`number` times `times` by `divisor`, rounded once, half to even, to eight decimal places.

    Of the 28 digits that Python keeps by default the eighth decimal of a large number may be none, or be rounded twice.
    """
    return _WIDE.quantize(_WIDE.divide(_WIDE.multiply(number, times), divisor), _EIGHT_PLACES)


_EIGHT_PLACES = Decimal("0.00000001")
_WIDE = Context(prec=120, rounding=ROUND_HALF_EVEN)
"""A column's 48 digits times a quantity of 30 stay exact, and nothing but an exact half looks like one when it is
rounded."""
