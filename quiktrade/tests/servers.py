"""Has this process write to one PostgreSQL server of a test, and read from another (`benchmarks/stage/servers.py`)."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection, connections
from django.test import override_settings

from benchmarks.stage.servers import Server
from quiktrade.database import replica
from quiktrade.local.postgres.server import NAME, PORT

__all__ = ["Server", "read_by_this_process", "used_by_this_process"]


@contextmanager
def used_by_this_process(server: Server) -> Iterator[None]:
    """Connect Django to this server, which gets the tables of the test database."""
    binaries = server.private.set_up()
    given = connection.settings_dict
    schema = subprocess.run(
        [
            *(binaries.directory / "pg_dump", "--schema-only", "--no-owner", "-h", given["HOST"]),
            *("-p", str(given["PORT"] or PORT), "-U", given["USER"], given["NAME"]),
        ],
        env=os.environ | {"PGPASSWORD": given["PASSWORD"] or ""},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    # The dump's meta-commands are for psql alone.
    statements = "\n".join(line for line in schema.splitlines() if not line.startswith("\\"))
    with server.connect(user=NAME) as made:
        made.execute(statements.encode())
    before = {name: given[name] for name in ("HOST", "PORT", "USER", "PASSWORD", "NAME")}
    connection.close()
    given |= {"HOST": server.host, "PORT": str(PORT), "USER": NAME, "PASSWORD": "", "NAME": NAME}
    try:
        yield
    finally:
        connection.close()
        given |= before


@contextmanager
def read_by_this_process(standby: Server) -> Iterator[None]:
    """Have this process read from this server what need not be read from the primary."""
    database = connection.settings_dict | {"HOST": standby.host, "PORT": str(PORT), "USER": NAME, "PASSWORD": ""}
    connections.settings[replica.ALIAS] = replica.settings(database | {"NAME": NAME}, most_connections=4)
    try:
        with override_settings(DATABASE_ROUTERS=["quiktrade.database.replica.Router"]):
            yield
    finally:
        wrapper: Any = connections[replica.ALIAS]
        wrapper.close_pool()
        del connections[replica.ALIAS]
        del connections.settings[replica.ALIAS]
        replica._state = replica._State()
