"""Passwords in the process that serves the API: hashed in another thread, one at a time."""

import threading
import time
from unittest.mock import patch

import gevent
from django.contrib.auth.hashers import PBKDF2PasswordHasher

from quiktrade.auth.hashers import AsideHasher

ENCODE = PBKDF2PasswordHasher.encode


def test_it_is_the_hash_that_the_console_makes_and_takes() -> None:
    made = AsideHasher().encode("correct horse", "salt", 1000)
    assert made == ENCODE(PBKDF2PasswordHasher(), "correct horse", "salt", 1000)
    assert AsideHasher().verify("correct horse", made)
    assert not AsideHasher().verify("wrong", made)


def test_it_is_computed_in_another_thread_and_the_other_greenlets_go_on() -> None:
    log: list[object] = []

    def encode(*arguments: object) -> str:
        time.sleep(0.05)
        log.append(threading.get_ident())
        return "hash"

    with patch.object(PBKDF2PasswordHasher, "encode", encode):
        hashing = gevent.spawn(AsideHasher().encode, "password", "salt")
        gevent.spawn(log.append, "another greenlet")
        assert hashing.get() == "hash"
    assert log[0] == "another greenlet"
    assert log[1] != threading.get_ident()


def test_of_several_one_is_computed_at_a_time() -> None:
    under_way: list[int] = []
    most = []

    def encode(*arguments: object) -> str:
        under_way.append(1)
        most.append(len(under_way))
        time.sleep(0.02)
        under_way.pop()
        return "hash"

    with patch.object(PBKDF2PasswordHasher, "encode", encode):
        gevent.joinall([gevent.spawn(AsideHasher().encode, "password", "salt") for _ in range(4)], raise_error=True)
    assert most == [1, 1, 1, 1]
