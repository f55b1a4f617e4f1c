import pytest

from quiktrade.texts import shown, storable


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("zu groß 数量 🙂", "zu groß 数量 🙂"),
        ("f\udcfcr", "f�r"),  # Latin-1, as Python reads it where UTF-8 is spoken
        ("a\0b\ud83d", "a�b�"),
        ("x" * 500, "x" * 500),
        ("x" * 501, "x" * 499 + "…"),
    ],
)
def test_what_a_database_does_not_take_is_replaced(text: str, kept: str) -> None:
    assert storable(text) == kept


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("zu groß 数量 🙂", "zu groß 数量 🙂"),
        ("\x1b[2Jgone\x9b1m", "\\x1b[2Jgone\\x9b1m"),
        ("one\nERROR two\r", "one\\nERROR two\\r"),
        ("\u202eevil\u2028", "\\u202eevil\\u2028"),  # turns the writing round; a line's end to some
        ("f\udcfcr", "f\\udcfcr"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, seen: str) -> None:
    assert shown(text) == seen


def test_the_lines_of_a_text_can_be_kept() -> None:
    assert shown("one\n\x1btwo", but="\n") == "one\n\\x1btwo"
