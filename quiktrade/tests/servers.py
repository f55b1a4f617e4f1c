"""PostgreSQL servers for a single test, from the programs of the private one: a primary and its standby."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from django.db import connection

from quiktrade.local.postgres.server import NAME, PORT, PrivateServer
from quiktrade.processes import Child
from quiktrade.tests.processes import wait_until

_QUICK = ("fsync=off", "max_connections=30", "shared_buffers=16MB")


class Server:
    """A server in its own folder. Its socket is beside its data; `options` are written like `fsync=off`."""

    def __init__(self, base: Path, *options: str) -> None:
        base.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.private = PrivateServer(base)
        self.options = options
        self._child: Child | None = None

    @property
    def host(self) -> str:
        return str(self.private.socket_directory)

    def make(self) -> None:
        self.private.set_up()

    def copy_of(self, primary: "Server") -> None:
        """Make it a standby of a server that runs."""
        directory = self.private.directory
        directory.mkdir(mode=0o711)
        self.private.make_private(self.private.socket_directory)
        self.private.make_private(self.private.data)
        binaries = primary.private.set_up()
        source = f"host={primary.host} port={PORT} user=postgres application_name=standby"
        status, said = self.private.run(
            binaries, "pg_basebackup", "-D", self.private.data, "-d", source, "-R", "-X", "stream", "-c", "fast"
        )
        assert status == 0, said

    def start(self) -> None:
        binaries = self.private.set_up()
        self._child = self.private.start(binaries.directory, *_QUICK, *self.options)
        wait_until(lambda: self.private.answers(binaries))

    def stop(self, number: signal.Signals = signal.SIGQUIT) -> None:
        """Stop it: at once, unless another signal says otherwise."""
        child, self._child = self._child, None
        if child is not None:
            child.end((number, 20.0))

    def connect(self, user: str = "postgres") -> "psycopg.Connection[Any]":
        return psycopg.connect(host=self.host, port=PORT, user=user, dbname=NAME, autocommit=True)


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
