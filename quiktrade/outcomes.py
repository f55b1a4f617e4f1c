"""What became of one row that a person's request named: the same for API, console and commands."""

from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """`explanation` says what was done, or why not. `key` is the row's primary key, a UUID or a
    venue's code."""

    key: Any
    done: bool
    explanation: str
    status: str | None = None
    """The status of the row, if it was not done."""
