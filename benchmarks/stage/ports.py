"""Ports for the parts of a system under test."""

import random
import socket
from contextlib import ExitStack, suppress

LOWEST, HIGHEST = 20_000, 32_000
"""They are below those that the kernel gives to outgoing connections: a part that is started again gets its old one."""


def free_ports(count: int) -> list[int]:
    """This many free ports with consecutive numbers."""
    dice = random.SystemRandom()
    while True:
        first = dice.randrange(LOWEST, HIGHEST - count)
        found = list(range(first, first + count))
        with ExitStack() as stack, suppress(OSError):
            for port in found:
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return found
