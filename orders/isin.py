"""International Securities Identification Numbers (ISO 6166), checked by python-stdnum."""

import re
from functools import lru_cache

from stdnum import isin

SHAPE = re.compile(r"[A-Z]{2}[A-Z0-9]{9}[0-9]")
SPECIAL_PREFIXES = ("EU", "QS", "QT", "XA", "XB", "XC", "XD", "XF", "XK", "XS")
"""The prefixes that python-stdnum accepts in addition to the country codes of ISO 3166. It does not export them."""

_TICKER = re.compile(r"[A-Za-z]{1,6}([.\-][A-Za-z]{1,2})?")

# Orders name the same few instruments again and again. Only texts of the right shape get here, so that no client can
# fill the memory with long ones.
_is_valid = lru_cache(maxsize=10_000)(isin.is_valid)


def is_isin(text: str) -> bool:
    """Whether it is an ISIN as it must be written: a prefix that exists, the right check digit, no blanks."""
    return SHAPE.fullmatch(text) is not None and _is_valid(text)


def why_not(text: str) -> str:
    """Why a text is not an ISIN, as a message for its sender."""
    if SHAPE.fullmatch(text):
        right = isin.calc_check_digit(text[:11])
        if not isin.is_valid(text[:11] + right):
            return (
                f"No ISIN begins with {text[:2]}. Allowed are the two-letter country codes of ISO 3166, and "
                f"{', '.join(SPECIAL_PREFIXES)}."
            )
        return (
            f"The check digit of {text} is not {text[11]}; it would be {right}. One of the characters "
            "is wrong: compare all twelve."
        )
    plain = text.strip().upper() if text.isascii() else text
    if is_isin(plain):
        return f"An ISIN is written in upper case and without blanks: {plain}."
    if _TICKER.fullmatch(text):
        return (
            f"{text} looks like a ticker. The instrument is named by its ISIN, which means the same at every venue: "
            "12 characters, such as US0378331005."
        )
    return (
        "An ISIN is required: 12 characters, two letters A-Z, nine letters or digits, and a check digit, such as "
        "US0378331005."
    )
