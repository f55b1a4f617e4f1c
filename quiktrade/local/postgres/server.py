"""Where the private PostgreSQL server of this checkout is, and how its database is made.

Its data is in `.data/pg`; it listens on a Unix socket in a directory that only its owner can enter, and
nowhere else. PostgreSQL refuses to run as root: started by root, it runs as `postgres` or `nobody`. Where
that account cannot reach the checkout (one under /root), the data is in /var/lib, and the wheel's programs
are copied there.
"""

import ctypes
import hashlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import urllib.parse
from pathlib import Path

from quiktrade import file_lock
from quiktrade.local.postgres.binaries import Binaries, find_binaries
from quiktrade.local.venv import ROOT
from quiktrade.processes import Child

NAME = "quiktrade"
PORT = 5432
"""It is only a part of the socket's name. It is given everywhere, because a PGPORT means another server."""

SERVER_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
"""The whole environment of PostgreSQL's programs: they must not see PGHOST, PGDATA and the like."""

CREATE_MEGABYTES = 100
"""A new database takes 65 MB, of which 16 are a segment of its write-ahead log."""
START_MEGABYTES = 20
"""PostgreSQL ends when it cannot make another segment of its write-ahead log."""

_LONGEST_SOCKET_PATH = 100  # a socket address holds 104 bytes on macOS, 108 on Linux
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
_ELSEWHERE = "set QUIKTRADE_DATA to a directory of your own, or DATABASE_URL to a PostgreSQL server"


class LocalDatabaseError(Exception):
    """The private server cannot be provided. The text says why, and what to do."""


def data_directory() -> Path:
    """Where this checkout keeps what it makes: database, secret key, the simulated exchange's journal."""
    return Path(os.environ.get("QUIKTRADE_DATA", "").strip() or ROOT / ".data").resolve()


def refuse_another_users(directory: Path) -> None:
    """Raises: LocalDatabaseError, if the directory exists and another user owns it: files of two owners do not work."""
    try:
        owner = directory.stat().st_uid
    except FileNotFoundError:
        return
    except OSError as error:
        raise LocalDatabaseError(f"Cannot use {directory}: {error.strerror}.\nOr {_ELSEWHERE}.") from None
    if owner != os.geteuid():
        raise LocalDatabaseError(
            f"{directory} belongs to the user {_name(owner)}, and you are {_name(os.geteuid())}.\n"
            f"Run the command as {_name(owner)}; or {_ELSEWHERE}."
        )


def make_directory(directory: Path) -> None:
    """Make the directory if it does not exist, and check that it is ours. Raises: LocalDatabaseError."""
    refuse_another_users(directory)
    try:
        if not directory.exists():
            directory.mkdir(parents=True, exist_ok=True)
            # If root makes it, the server's account must be able to pass through, whatever the umask, and no more.
            directory.chmod(0o711 if os.geteuid() == 0 else 0o700)
    except OSError as error:
        raise LocalDatabaseError(f"Cannot make {directory}: {error.strerror}.\nOr {_ELSEWHERE}.") from None


def refuse_full_disk(directory: Path, megabytes: int) -> None:
    """Raises: LocalDatabaseError, if less is free on its disk. A later failure would not say so as clearly."""
    try:
        free = shutil.disk_usage(next(place for place in (directory, *directory.parents) if place.exists())).free
    except OSError:
        return  # the next step will report the error
    if free < megabytes * 1_000_000:
        raise LocalDatabaseError(
            f"The disk of {directory} is full: {free // 1_000_000} MB are free, and PostgreSQL needs {megabytes}.\n"
            f"Make room there; or {_ELSEWHERE}."
        )


class PrivateServer:
    """A private server, whether or not it runs or has ever run. Making this object changes nothing on disk."""

    def __init__(self, base: Path | None = None) -> None:
        """`base` is the data directory; by default it is this checkout's."""
        self.base = base or data_directory()
        tag = hashlib.sha256(os.fsencode(self.base)).hexdigest()[:10]
        self.directory = self.base / "pg"
        as_root = os.geteuid() == 0
        if as_root and not (self.directory / "data").exists() and not _open_to_all(self.directory):
            self.directory = Path("/var/lib") / f"{NAME}-{tag}"
        self.data = self.directory / "data"
        self.socket_directory = self.directory / "run"
        # libpq reads a comma in a host as the end of that host.
        if len(os.fsencode(self.socket)) > _LONGEST_SOCKET_PATH or "," in str(self.socket):
            # Not TMPDIR, which another terminal may have set to something else.
            self.socket_directory = Path("/tmp") / f"{NAME}-{os.geteuid()}-{tag}"  # noqa: S108
        self.keeper_lock = self.directory / "keeper.lock"
        self.users_lock = self.directory / "users.lock"
        self.keeper_log = self.directory / "keeper.log"
        self.server_log = self.directory / "server.log"

    @property
    def socket(self) -> Path:
        return self.socket_directory / f".s.PGSQL.{PORT}"

    @property
    def url(self) -> str:
        host = urllib.parse.quote(str(self.socket_directory), safe="")
        return f"postgresql://{NAME}@:{PORT}/{NAME}?host={host}"

    def account(self) -> pwd.struct_passwd | None:
        """The account that the server runs as, or None for the account of this process."""
        if os.geteuid() != 0:
            return None
        try:
            if self.data.exists():  # the owner stays, even if a package has added 'postgres' since
                return pwd.getpwuid(self.data.stat().st_uid)
            names = {user.pw_name: user for user in pwd.getpwall()}
            return names.get("postgres") or names["nobody"]
        except KeyError:
            raise LocalDatabaseError(
                "PostgreSQL does not run as root, and there is no account 'postgres' or 'nobody' for it.\n"
                "Run the command as a normal user, or set DATABASE_URL to a PostgreSQL server."
            ) from None

    def make_private(self, directory: Path) -> None:
        """Make a directory that only the server's account can enter, or check that it is one."""
        account = self.account()
        owner = account.pw_uid if account else os.geteuid()
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            pass
        else:
            if account:
                os.chown(directory, account.pw_uid, account.pw_gid)
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
            whose = f"a private directory of the user {_name(owner)}"
            raise LocalDatabaseError(f"{directory} is not {whose}. Remove it and try again.")

    def start(self, binaries: Path, *options: str) -> Child:
        """Start the server as its account. `options` are PostgreSQL's; its output goes to its log.

        The server cannot use a lifeline. On Linux the kernel interrupts it when the thread that started it is gone.
        """
        account = self.account()
        self.make_private(self.socket_directory)  # a cleaner of /tmp may have removed it
        directory = str(self.socket_directory).replace('"', '""')
        options = ("listen_addresses=", f'unix_socket_directories="{directory}"', *options)
        with open(self.server_log, "ab") as log:
            return Child(
                [binaries / "postgres", "-D", self.data, "-p", str(PORT), *(f"--{option}" for option in options)],
                None,
                SERVER_ENVIRONMENT,
                stdout=log,
                stderr=log,
                cwd="/",
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
                preexec_fn=_interrupt_when_orphaned if sys.platform == "linux" else None,
            )

    def answers(self, binaries: Binaries) -> bool:
        """Whether the server takes connections."""
        program = binaries.directory / "pg_isready"
        options = ["-q", "-h", str(self.socket_directory), "-p", str(PORT), "-U", NAME, "-d", NAME]
        return subprocess.run([program, *options], cwd="/", env=SERVER_ENVIRONMENT).returncode == 0

    def run(self, binaries: Binaries, program: str, *arguments: str | Path, text: str = "") -> tuple[int, str]:
        """Run a program of PostgreSQL as the server's account. Returns its exit status and its output."""
        account = self.account()
        done = subprocess.run(
            [binaries.directory / program, *arguments],
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd="/",
            env=SERVER_ENVIRONMENT,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
            start_new_session=True,  # Ctrl-C in the terminal must not reach it
        )
        return done.returncode, done.stdout

    def set_up(self) -> Binaries:
        """Make the directories and the database if they do not exist. Raises: LocalDatabaseError."""
        make_directory(self.base)
        make_directory(self.directory)
        lock = file_lock.open_lock(self.directory / "setup.lock")
        try:
            file_lock.wait_for_lock(lock)
            self.make_private(self.socket_directory)
            binaries = self._binaries()
            if not self.data.exists():
                what = f"a private PostgreSQL {binaries.major} database in {self.directory}"
                refuse_full_disk(self.directory, CREATE_MEGABYTES)
                sys.stderr.write(f"Creating {what}\n")
                self._create(binaries)
            return binaries
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            raise LocalDatabaseError(f"Cannot make the database. {what}.\nOr {_ELSEWHERE}.") from None
        finally:
            os.close(lock)

    def _binaries(self) -> Binaries:
        major = (self.data / "PG_VERSION").read_text().strip() if self.data.exists() else None
        binaries = next(find_binaries(major), None)
        if binaries:
            readable = os.geteuid() != 0 or _open_to_all(binaries.directory)
            return binaries if readable else binaries.copy_to(self.directory)
        if major:
            raise LocalDatabaseError(
                f"{self.data} was made by PostgreSQL {major}, which is not on this machine any more.\n"
                "Install that version; or, to begin with an empty database, move the directory away."
            )
        raise LocalDatabaseError(
            "There is no PostgreSQL on this machine, and DATABASE_URL is not set.\n"
            "Install the packages of requirements-local.lock, which bring one; or install PostgreSQL itself\n"
            "(apt-get install postgresql, brew install postgresql); or set DATABASE_URL."
        )

    def _create(self, binaries: Binaries) -> None:
        """Make the database in another directory and rename that: a kill half-way leaves none, not half of one."""
        draft = self.directory / "data.new"
        if draft.exists():
            shutil.rmtree(draft)
        self.make_private(draft)
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale"]
        status, said = self.run(binaries, "initdb", "-D", draft, *options)
        if status:
            raise LocalDatabaseError(f"PostgreSQL's initdb failed with exit status {status}:\n{said.strip()}")
        # The application's role is not a superuser, so that what works here works elsewhere.
        statements = f"CREATE ROLE {NAME} LOGIN CREATEDB\nCREATE DATABASE {NAME} OWNER {NAME}\n"
        status, said = self.run(binaries, "postgres", "--single", "-D", draft, "postgres", text=statements)
        if status or "ERROR:" in said:
            raise LocalDatabaseError(f"PostgreSQL could not create the database {NAME}:\n{said.strip()}")
        draft.rename(self.data)


def _interrupt_when_orphaned() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def _open_to_all(path: Path) -> bool:
    """Whether any user can reach this path, by the search bits of the directories that exist."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in (path, *path.parents) if parent.is_dir())


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
