"""Races: several threads that start together, each with its own database connection."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
from django.db import connection

from quiktrade.tests.processes import database_url_of_tests


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run `work(n)` for n below `count`, all at once, and return the result of each."""
    start = threading.Barrier(count)

    def run(n: int) -> Any:
        try:
            start.wait()
            return work(n)
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def somebody_waits_for_a_lock() -> bool:
    """Whether a statement in the tests' database waits for a lock of another one."""
    with psycopg.connect(database_url_of_tests()) as other:  # a transaction sees what it saw at first
        waiting = other.execute(
            "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return waiting.rowcount > 0
