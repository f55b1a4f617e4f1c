"""Private servers in their own directories, used by processes that start, end and are killed."""

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import psycopg
import pytest

from quiktrade.local.log_stream import LogStream
from quiktrade.local.postgres import lease, server
from quiktrade.local.postgres.server import PrivateServer
from quiktrade.local.postgres.watch import DatabaseWatch
from quiktrade.local.venv import ROOT
from quiktrade.tests.places import open_place, processes_of
from quiktrade.tests.processes import wait_until

# Uses the server until its standard input ends.
USER = """
import sys
from quiktrade.local.postgres import lease
try:
    lease.use()
except lease.LocalDatabaseError as error:
    sys.exit(str(error))
print("in use", flush=True)
sys.stdin.read()
"""


class User:
    """A process that uses the private server of a data directory."""

    def __init__(self, data: Path) -> None:
        environment = {**os.environ, "QUIKTRADE_DATA": str(data)}
        environment.pop("DATABASE_URL", None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self) -> None:
        assert self.process.stdout
        assert self.process.stdout.readline() == "in use\n", self.leave()

    def leave(self) -> str:
        """Returns its error output."""
        return self.process.communicate(timeout=90)[1]

    def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            self.leave()


Use = Callable[..., User]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory, whose `data` is this process's data directory as well."""
    with open_place() as place:
        monkeypatch.setenv("QUIKTRADE_DATA", str(place / "data"))
        monkeypatch.delenv("DATABASE_URL", raising=False)
        yield place
        wait_until(lambda: not processes_of(place))


@pytest.fixture
def use(place: Path) -> Iterator[Use]:
    """Starts users of the server; of the one in `place / "data"` if no other data directory is given."""
    with ExitStack() as users:

        def start(data: Path | None = None, *, wait: bool = True) -> User:
            user = User(data or place / "data")
            users.callback(user.kill)
            if wait:
                user.wait()
            return user

        yield start


def ask(statement: str) -> object:
    with psycopg.connect(lease.url(), autocommit=True) as connection:
        cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def answers() -> bool:
    try:
        return ask("SELECT 1") == 1
    except psycopg.OperationalError:
        return False


def server_process() -> psutil.Process:
    return psutil.Process(int((PrivateServer().data / "postmaster.pid").read_text().split()[0]))


def keeper_process(place: Path) -> psutil.Process:
    (keeper,) = [
        process for process in processes_of(place) if "quiktrade.local.postgres.keeper" in process.info["cmdline"]
    ]
    return keeper


@pytest.mark.exhaustive
def test_the_server_is_durable_private_and_not_for_superusers(place: Path, use: Use) -> None:
    user = use()
    assert [ask(f"SHOW {name}") for name in ("fsync", "synchronous_commit", "listen_addresses")] == ["on", "on", ""]
    assert ask("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
    assert PrivateServer().socket_directory.stat().st_mode & 0o077 == 0
    assert server_process().uids().effective != 0
    user.leave()


@pytest.mark.exhaustive
def test_the_last_user_to_leave_stops_the_server_and_the_data_stay(place: Path, use: Use) -> None:
    first, second = use(), use()
    ask("CREATE TABLE kept AS SELECT 42 AS answer")
    first.leave()
    assert answers()
    second.leave()
    assert not PrivateServer().socket.exists()
    wait_until(lambda: processes_of(place) == [], seconds=10.0)
    third = use()
    assert ask("SELECT answer FROM kept") == 42
    third.leave()


def test_users_that_are_killed_leave_nothing_behind(place: Path, use: Use) -> None:
    first, second = use(), use()
    first.kill()
    second.kill()
    wait_until(lambda: not processes_of(place))
    assert not PrivateServer().socket.exists()


def test_many_first_users_at_once_get_one_server(place: Path, use: Use) -> None:
    users = [use(wait=False) for _ in range(4)]
    for user in users:
        user.wait()
    assert len([process for process in processes_of(place) if "postgres.keeper" in str(process.info["cmdline"])]) == 1
    assert [user.leave() for user in users].count("") == 3  # one said that it creates the database


def test_a_server_that_is_killed_is_started_again(place: Path, use: Use) -> None:
    user = use()
    ask("CREATE TABLE kept AS SELECT 42 AS answer")
    killed = server_process()
    killed.kill()
    wait_until(lambda: not killed.is_running())
    wait_until(answers)
    assert ask("SELECT answer FROM kept") == 42
    assert "PostgreSQL ended: SIGKILL; starting it again" in PrivateServer().keeper_log.read_text()
    user.leave()


def test_a_server_goes_with_its_killed_keeper_and_comes_with_the_next_user(place: Path, use: Use) -> None:
    first = use()
    keeper_process(place).kill()
    second = use()
    assert answers()
    first.leave()
    second.leave()
    wait_until(lambda: processes_of(place) == [], seconds=10.0)


@pytest.mark.exhaustive
def test_everything_killed_at_once_starts_again(place: Path, use: Use) -> None:
    user = use()
    ask("CREATE TABLE kept AS SELECT 42 AS answer")
    for process in [keeper_process(place), server_process(), psutil.Process(user.process.pid)]:
        process.kill()
    user.leave()
    wait_until(lambda: not processes_of(place))
    user = use()
    assert ask("SELECT answer FROM kept") == 42
    user.leave()


@pytest.mark.exhaustive
def test_a_frozen_server_goes_with_its_last_user(place: Path, use: Use) -> None:
    user = use()
    server_process().suspend()
    user.leave()
    wait_until(lambda: processes_of(place) == [], seconds=20.0)
    assert "database system is shut down" in PrivateServer().server_log.read_text()  # it was asked, not killed


@pytest.mark.exhaustive
def test_the_log_of_a_server_that_says_much_is_bounded(place: Path, use: Use) -> None:
    user = use()
    log = PrivateServer().server_log
    with open(log, "ab") as file:
        file.write(b"x" * 5_000_001)
    wait_until(lambda: log.stat().st_size < 1_000)
    assert log.with_suffix(".log.1").stat().st_size > 5_000_000
    assert answers()
    user.leave()


# Starts a server as tests do, and never ends it.
STARTER = """
import sys, time
from pathlib import Path
from quiktrade.local.postgres.server import PrivateServer
server = PrivateServer(Path(sys.argv[1]))
binaries = server.set_up()
server.start(binaries.directory)
while not server.answers(binaries):
    time.sleep(0.02)
print("started", flush=True)
time.sleep(60)
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the next keeper stops it")
def test_a_server_ends_when_what_has_started_it_is_killed(place: Path) -> None:
    command = [sys.executable, "-c", STARTER, str(place / "data")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as starter:
        assert starter.stdout
        assert starter.stdout.readline() == b"started\n"
        server = server_process()
        starter.kill()
    wait_until(lambda: not server.is_running())
    assert "database system is shut down" in PrivateServer().server_log.read_text()


@pytest.mark.exhaustive
def test_a_process_number_that_another_program_has_by_now_does_not_stop_the_server(place: Path, use: Use) -> None:
    user = use()
    record = PrivateServer().data / "postmaster.pid"
    lines = record.read_text().split("\n")
    user.leave()
    owner = PrivateServer().data.stat().st_uid
    with subprocess.Popen(["sleep", "60"], user=owner if os.geteuid() == 0 else None) as stranger:
        record.write_text("\n".join([str(stranger.pid), *lines[1:]]))
        record.chmod(0o600)
        os.chown(record, owner, -1)
        user = use()
        assert answers()
        user.leave()
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.exhaustive
def test_a_path_that_is_long_or_has_a_comma_gets_its_socket_elsewhere(
    place: Path, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = place / ("a long path, with spaces and 100% of all \"quotes'; " + "x" * 60)
    monkeypatch.setenv("QUIKTRADE_DATA", str(data))
    user = use(data)
    assert answers()
    assert data not in PrivateServer().socket.parents
    user.leave()
    assert not PrivateServer().socket_directory.exists()


@pytest.mark.exhaustive
def test_a_full_disk_is_named_before_anything_is_tried(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CREATE_MEGABYTES", 10**9)
    full = rf"The disk of {place}/data/pg is full: \d+ MB are free, and PostgreSQL needs 1000000000"
    with pytest.raises(lease.LocalDatabaseError, match=full):
        lease.LocalDatabase()
    monkeypatch.setattr(server, "CREATE_MEGABYTES", 1)
    monkeypatch.setattr(lease, "START_MEGABYTES", 10**9)
    with pytest.raises(lease.LocalDatabaseError, match=full):
        lease.LocalDatabase()
    assert not PrivateServer().server_log.exists()


@pytest.mark.exhaustive
def test_what_an_earlier_run_said_is_not_shown_for_the_cause(
    place: Path, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    use().leave()
    assert "database system is shut down" in PrivateServer().server_log.read_text()
    monkeypatch.setattr(lease.LocalDatabase, "start_keeper", lambda database: None)
    with pytest.raises(lease.LocalDatabaseError, match=r"PostgreSQL does not start.*has nothing new\.$"):
        lease.LocalDatabase()


@pytest.mark.exhaustive
def test_a_directory_that_is_moved_away_is_named_and_its_server_stops(place: Path) -> None:
    database = lease.LocalDatabase()
    watch = DatabaseWatch(database, LogStream(io.StringIO(), ["database"], colour=False))
    watch.tend()
    os.rename(place / "data", place / "elsewhere")
    time.sleep(0.2)  # it does not look more often
    with pytest.raises(lease.LocalDatabaseError, match="data/pg is gone: it was moved or removed"):
        watch.tend()
    database.release()
    wait_until(lambda: not processes_of(place))
    assert "Traceback" not in (place / "elsewhere" / "pg" / "keeper.log").read_text()


def test_anothers_data_directory_is_refused_with_both_names(place: Path, use: Use) -> None:
    data = place / "data"
    if os.geteuid() == 0:
        data.mkdir()
        os.chown(data, 65534, -1)
    else:
        data = Path("/usr")
    said = use(data, wait=False).leave()
    assert "belongs to the user" in said
    assert "Run the command as" in said
    assert "QUIKTRADE_DATA" in said


@pytest.mark.exhaustive
def test_a_database_of_a_version_that_is_not_here_is_left_alone(place: Path, use: Use) -> None:
    use().leave()
    (PrivateServer().data / "PG_VERSION").write_text("9\n")
    said = use(wait=False).leave()
    assert "was made by PostgreSQL 9, which is not on this machine any more" in said


@pytest.mark.exhaustive
def test_a_server_that_cannot_start_is_given_up_with_the_end_of_its_log(place: Path, use: Use) -> None:
    use().leave()
    (PrivateServer().data / "global" / "pg_control").unlink()
    said = use(wait=False).leave()
    assert "PostgreSQL does not start." in said
    assert "pg_control" in said
    wait_until(lambda: processes_of(place) == [], seconds=10.0)


def test_another_database_in_the_environment_is_none_of_its_business(
    place: Path, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere/quiktrade")
    assert lease.use() is None
    lease.configure(["manage.py", "migrate"])
    assert os.environ["DATABASE_URL"] == "postgresql://elsewhere/quiktrade"
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("command", [[], ["help"], ["check"], ["migrate", "--help"], ["run_exchange"]])
def test_commands_that_need_no_database_start_none(place: Path, command: list[str]) -> None:
    lease.configure(["manage.py", *command])
    assert os.environ["DATABASE_URL"] == lease.url()
    assert list(place.iterdir()) == []
