"""How the process that serves the API hashes passwords: in another thread, one at a time.

A hash is meant to cost a tenth of a second of processor time. In the thread of the greenlets it would keep every
client waiting that long. OpenSSL, which computes it, lets other threads run meanwhile.
"""

from typing import Any

import gevent
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from gevent.lock import BoundedSemaphore

from quiktrade.auth.turns import in_turn
from quiktrade.database.pool import give_back

_one_at_a_time = BoundedSemaphore(1)


class AsideHasher(PBKDF2PasswordHasher):
    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        give_back()
        return in_turn(_one_at_a_time, self._aside, password, salt, iterations)

    def _aside(self, *arguments: Any) -> str:
        encoded: str = gevent.get_hub().threadpool.apply(super().encode, arguments)
        return encoded
