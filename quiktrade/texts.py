"""Text from outside (a client, a venue, a terminal), made fit for a row and for a screen."""

import re
import unicodedata

MAX_TEXT = 500
"""Characters of a reason or an error that a row keeps."""
MAX_ACTOR = 160

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_NOT_SHOWN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


def storable(text: object, most: int = MAX_TEXT) -> str:
    """The text as a database can store it: no NUL, no half of a surrogate pair, limited length.

    A byte of the command line or the environment that is not UTF-8 is such a half in Python.
    """
    if not isinstance(text, str):  # any other value may also be of any length
        text = type(text).__name__
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text if len(text) <= most else f"{text[: most - 1]}…")


def kept_reason(text: str) -> str:
    """A person's reason as a history keeps it. Raises: ValueError, if it is empty.

    Nothing else is refused: a request must not fail because of a character in its reason, or its length.
    """
    reason = storable(text.strip(), MAX_TEXT)
    if not reason:
        raise ValueError("A reason is required.")
    return reason


def shown(text: str, *, but: str = "") -> str:
    """The text with escapes in place of characters that control a terminal or break the line.

    The characters in `but` are left as they are.
    """
    if text.isprintable():
        return text
    return "".join(c if c in but or unicodedata.category(c) not in _NOT_SHOWN else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
