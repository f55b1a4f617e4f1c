"""One password hash at a time in each web process.

Several at once would take the processor from the orders. Whoever waits for their turn too long is sent away.
"""

import threading
from collections.abc import Callable
from typing import Any

from django.contrib.auth.hashers import PBKDF2PasswordHasher

from quiktrade.errors import Refusal

WAIT_SECONDS = 3.0
"""How long a log-in waits for its turn."""

_one_at_a_time = threading.BoundedSemaphore(1)


class Busy(Refusal):
    """So many passwords are being checked that this one was not looked at."""

    status = 429
    kind = "too-many-requests"
    retry_seconds = 2

    def __init__(self) -> None:
        super().__init__("Too many passwords are being checked at this moment. Try again in a few seconds.")


def in_turn(semaphore: Any, encode: Callable[..., str], *arguments: Any) -> str:
    """Raises: Busy."""
    if not semaphore.acquire(timeout=WAIT_SECONDS):
        raise Busy
    try:
        return encode(*arguments)
    finally:
        semaphore.release()


class ConsoleHasher(PBKDF2PasswordHasher):
    """The console's requests are threads. Those of the API have a hasher of their own in hashers.py."""

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        return in_turn(_one_at_a_time, super().encode, password, salt, iterations)
