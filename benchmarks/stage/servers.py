"""PostgreSQL servers of a system under test, from the programs of the private one: a primary and its standby."""

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.stage.processes import look
from quiktrade.local.postgres.server import NAME, PORT, PrivateServer
from quiktrade.processes import Child, wait_for

START_SECONDS = 60.0
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
        """Make it a standby of a server that runs, and forget what it had before."""
        self._copy(primary, "-R", "-X", "stream")

    def back_up(self, primary: "Server") -> None:
        """Have a base backup of a server that runs in the place of its own data; the log that belongs to it is in that
        server's archive alone."""
        self._copy(primary, "-X", "none", "--manifest-checksums=SHA256")
        self._verify_backup()

    def _verify_backup(self) -> None:
        """Compare each file with the backup's manifest. The wheel's pg_verifybackup does not run."""
        manifest = json.loads((self.private.data / "backup_manifest").read_text())
        for file in manifest["Files"]:
            content = (self.private.data / file["Path"]).read_bytes()
            if (len(content), hashlib.sha256(content).hexdigest()) != (file["Size"], file["Checksum"]):
                raise RuntimeError(f"The base backup is not whole: {file['Path']} is not as its manifest says.")

    def _copy(self, primary: "Server", *options: str) -> None:
        directory = self.private.directory
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o711)
        self.private.make_private(self.private.socket_directory)
        self.private.make_private(self.private.data)
        binaries = primary.private.set_up()
        source = f"host={primary.host} port={PORT} user=postgres application_name=standby"
        status, said = self.private.run(
            binaries, "pg_basebackup", "-D", self.private.data, "-d", source, "-c", "fast", *options
        )
        if status:
            raise RuntimeError(f"The base backup could not be made: {said.strip()}")

    def become_standby(self) -> None:
        """Make it a standby that follows nothing, before it is started."""
        (self.private.data / "standby.signal").touch()

    def become_restored(self) -> None:
        """Have it recover from the archive when it is started next."""
        (self.private.data / "recovery.signal").touch()

    def start(self) -> None:
        binaries = self.private.set_up()
        self._child = self.private.start(binaries.directory, *_QUICK, *self.options)
        if not wait_for(lambda: self.private.answers(binaries), START_SECONDS):
            raise RuntimeError(f"PostgreSQL does not start; its log is {self.private.server_log}")

    def stop(self, number: signal.Signals = signal.SIGQUIT) -> None:
        """Stop it: at once, unless another signal says otherwise."""
        child, self._child = self._child, None
        if child is not None:
            child.end((number, 20.0))

    def send_to_all(self, number: signal.Signals) -> None:
        """Send a signal to each of its processes."""
        assert self._child is not None
        postmaster = self._child.pid
        for pid in (postmaster, *(seen.pid for seen in look().get(postmaster, ()))):
            os.kill(pid, number)

    def connect(self, user: str = "postgres") -> "psycopg.Connection[Any]":
        return psycopg.connect(host=self.host, port=PORT, user=user, dbname=NAME, autocommit=True)
