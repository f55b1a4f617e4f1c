"""Decimal numbers as text, for those who must read them exactly: venues, clients and operators."""

from decimal import Decimal


def decimal_text(number: Decimal) -> str:
    """All significant digits and no others: never an exponent, a trailing zero or a minus before zero.

    A column's `187.25000000` is 187.25: a strict venue takes eight decimal places for a price below its tick.
    """
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").removesuffix(".")
    return "0" if text == "-0" else text
