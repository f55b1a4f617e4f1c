"""International Securities Identification Numbers (ISO 6166)."""

import re
from functools import lru_cache

SHAPE = re.compile(r"[A-Z]{2}[A-Z0-9]{9}[0-9]")


@lru_cache(maxsize=10_000)  # the same few instruments, over and over
def is_isin(text: str) -> bool:
    """Whether it has an ISIN's shape and its check digit is right.

    Letters become two digits (A=10 … Z=35); then the Luhn sum over all digits, the check digit included, is a
    multiple of ten.
    """
    if not SHAPE.fullmatch(text):
        return False
    digits = "".join(str(int(character, 36)) for character in text)
    total = sum(sum(divmod(int(digit) * (1 + place % 2), 10)) for place, digit in enumerate(reversed(digits)))
    return total % 10 == 0
