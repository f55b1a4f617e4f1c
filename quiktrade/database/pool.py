"""The connections of the process that serves the API, which its requests share.

In that process each request is a greenlet, and Django gives each greenlet its own connection: thousands of clients
would take thousands. So they share psycopg's pool: a request takes a connection with its first statement and gives it
back at its end, or before it waits for anything else. No other process has a pool: a pool does not survive a fork,
which the job cluster needs, and a thread that lasts can keep its connection.
"""

from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection, connections

TIMEOUT_SECONDS = 3.0
"""How long a request waits for a free connection. Then the answer is 503, as when the database does not answer."""


def use_pool(most: int) -> None:
    """Have this process's requests share up to `most` connections. Call this before the first one is made."""
    settings = connections.settings[DEFAULT_DB_ALIAS]
    settings["CONN_MAX_AGE"] = 0  # given back at the end of each request
    settings["OPTIONS"]["pool"] = {
        "min_size": 1,
        "max_size": most,
        "timeout": TIMEOUT_SECONDS,
        # While the database is away, the pool repeats an attempt to connect only for this long. The next request makes
        # a new attempt at once, while the pool's own would come at longer and longer intervals.
        "reconnect_timeout": 1.0,
    }


def give_back() -> None:
    """Give this request's pooled connection back while it waits for something else."""
    wrapper: Any = connection
    if wrapper.pool is not None and wrapper.connection is not None and not wrapper.in_atomic_block:
        wrapper.close()


def forget() -> None:
    """Give it back for long: what Django keeps for each greenlet that has had one is made again when it is needed."""
    give_back()
    wrapper: Any = connection
    if wrapper.pool is not None and wrapper.connection is None:
        del connections[DEFAULT_DB_ALIAS]


def discard() -> None:
    """Close this thread's connection for good: a pool would hand it to the next request."""
    wrapper: Any = connection
    if wrapper.connection is not None:
        wrapper.connection.close()
    wrapper.close()
