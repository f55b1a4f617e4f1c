"""International Securities Identification Numbers (ISO 6166)."""

import re
from functools import lru_cache

SHAPE = re.compile(r"[A-Z]{2}[A-Z0-9]{9}[0-9]")
_TICKER = re.compile(r"[A-Za-z]{1,6}([.\-][A-Za-z]{1,2})?")


@lru_cache(maxsize=10_000)  # the same few instruments, over and over
def is_isin(text: str) -> bool:
    """Whether it has an ISIN's shape and its check digit is right."""
    return SHAPE.fullmatch(text) is not None and text[11] == _check_digit(text)


def why_not(text: str) -> str:
    """What keeps a text from being an ISIN, for who sent it."""
    if SHAPE.fullmatch(text):
        return (
            f"The check digit of {text} is not {text[11]}; it would be {_check_digit(text)}. One of the characters "
            "is wrong: compare all twelve."
        )
    plain = text.strip().upper() if text.isascii() else text
    if SHAPE.fullmatch(plain) and plain[11] == _check_digit(plain):
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


def _check_digit(text: str) -> str:
    """What the first eleven characters call for as the twelfth.

    Letters become two digits (A=10 … Z=35); then the Luhn sum over all digits, the check digit included, is a
    multiple of ten.
    """
    digits = "".join(str(int(character, 36)) for character in text[:11])
    total = sum(sum(divmod(int(digit) * (2 - place % 2), 10)) for place, digit in enumerate(reversed(digits)))
    return str(-total % 10)
