"""The tests' database, and the fixtures that all apps share.

Each process that runs tests has a private PostgreSQL of its own, with its true settings: fsync and synchronous_commit
on. So the processes of a run, several runs of one checkout, and an `up` beside them do not disturb one another. They
would on one server: what can be read of the feed waits for the oldest transaction of the whole cluster (orders.feed),
and some tests freeze a program in the middle of one. With a server in `DATABASE_URL`, one process runs all tests.
"""

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.core.cache import cache
from django.db import connection, transaction
from django.test import TransactionTestCase

from quiktrade import file_lock
from quiktrade.local.postgres import lease
from quiktrade.local.postgres.server import LocalDatabaseError, PrivateServer, data_directory, make_directory
from quiktrade.processes import forget_inherited_signals
from quiktrade.tests.processes import Processes, nothing_is_written, wait_until


def pytest_configure(config: pytest.Config) -> None:
    """Let no test depend on what started this run: nohup, a script in the background, or a service.

    The programs that a test starts would also ignore the signals that this process ignores; they do not inherit a
    handler. Coverage is measured in the processes that run tests, not in the programs that those start, because it
    slows them down.
    """
    if hasattr(config, "workerinput") or not config.getoption("numprocesses"):
        os.environ.pop("COVERAGE_PROCESS_START", None)
    forget_inherited_signals()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):  # a shell has its background jobs ignore these
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    if not lease.is_private():
        config.option.numprocesses = 0


@pytest.fixture(scope="session", autouse=True)
def own_number() -> Iterator[int]:
    """A number that no other test process of this checkout has, and the private server of that number."""
    try:
        make_directory(data_directory())
        for number in itertools.count(1):
            lock = file_lock.open_lock(data_directory() / f"test_{number}.lock")
            if file_lock.try_lock(lock):
                break
            os.close(lock)
        with pytest.MonkeyPatch.context() as patch:
            if lease.is_private():
                patch.setenv("QUIKTRADE_DATA", str(data_directory() / f"test_{number}"))
                patch.setenv("DATABASE_URL", lease.url())
                patch.setitem(connection.settings_dict, "HOST", str(PrivateServer().socket_directory))
            yield number
    except LocalDatabaseError as error:
        pytest.exit(str(error), returncode=1)
    os.close(lock)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings: None, own_number: int) -> None:
    """Have the server run, and choose a database that no other test run uses."""
    try:
        private = lease.use()
    except LocalDatabaseError as error:
        pytest.exit(str(error), returncode=1)
    if private:
        with psycopg.connect(lease.url(), user="postgres", dbname="postgres", autocommit=True) as line:
            # The transactions in which it analyzes tables delay the feed, and what it has seen of them changes plans.
            line.execute("ALTER SYSTEM SET autovacuum = off")
            line.execute("SELECT pg_reload_conf()")
    creation: Any = connection.creation
    creation._destroy_test_db = _drop_database
    test = connection.settings_dict["TEST"]
    name = test["NAME"] or f"test_{connection.settings_dict['NAME']}"
    test["NAME"] = name if own_number == 1 else f"{name}_{own_number}"


def _drop_database(name: str, verbosity: int) -> None:
    """End its sessions first: that of a program that was killed a moment ago may not have noticed it yet."""
    with connection._nodb_cursor() as cursor:
        cursor.execute(f"DROP DATABASE {connection.ops.quote_name(name)} WITH (FORCE)")


@pytest.fixture(scope="session", autouse=True)
def quick_settings() -> None:
    """Switch off what takes much time in tests and proves nothing."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.WHITENOISE_AUTOREFRESH = True  # look for a static file when it is asked for, not for all at the start


@pytest.fixture(scope="session", autouse=True)
def quick_emptying() -> None:
    """Delete only the rows that a test committed. Django would truncate every table and make the permissions again.

    Django's way takes a second, and deleting the few rows a fiftieth of that. What Django would make again is kept.
    """
    TransactionTestCase._fixture_teardown = _delete_all_rows  # type: ignore[attr-defined]


APPEND_ONLY = ("orders_orderevent", "orders_execution", "exchanges_venueevent", "quiktrade_incidentevent")
"""Tables whose triggers refuse to have rows deleted."""


def _delete_all_rows(case: TransactionTestCase) -> None:
    kept = ("django_content_type", "auth_permission")
    tables = set(connection.introspection.django_table_names(only_existing=True, include_views=False)).difference(kept)
    asked = " UNION ALL ".join(f"SELECT '{table}' WHERE EXISTS (SELECT FROM {table})" for table in tables)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(asked)
        filled = [table for (table,) in cursor.fetchall()]
        refusing = [table for table in filled if table in APPEND_ONLY]
        statements = [f"ALTER TABLE {table} DISABLE TRIGGER USER" for table in refusing]
        statements += [f"DELETE FROM {table}" for table in filled]
        statements += ["SET CONSTRAINTS ALL IMMEDIATE"]
        statements += [f"ALTER TABLE {table} ENABLE TRIGGER USER" for table in refusing]
        cursor.execute("; ".join(statements))
    # PostgreSQL goes on with a killed program's statement until that has ended, and the next test's feed waits for it.
    wait_until(nothing_is_written)


@pytest.fixture(autouse=True)
def nothing_remembered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what a process keeps for a second, because it would outlive the rows of a test.

    Its connections would outlive the database, and its count of log-ins from one address the test.
    """
    from exchanges import directory
    from quiktrade import limits
    from quiktrade.auth import authentication, keys
    from quiktrade.auth.authentication import TokenAuthentication
    from quiktrade.jobs import doorbell

    if "remembers" not in request.keywords:
        monkeypatch.setattr(directory, "listings", directory.listings.__wrapped__)
        monkeypatch.setattr(directory, "all_capabilities", directory.all_capabilities.__wrapped__)
        monkeypatch.setattr(TokenAuthentication, "get_user", TokenAuthentication.get_user.__wrapped__)
    else:
        directory.listings.cache_clear()
        directory.all_capabilities.cache_clear()
        authentication.forget()
    keys.ring.forget()
    for limit in limits.LIMITS:
        limit.forget()
    cache.clear()
    yield
    doorbell.hang_up()


@pytest.fixture
def processes(transactional_db: None, tmp_path: Path) -> Iterator[Processes]:
    """Starts the web part, workers and simulated exchanges on the test database, and ends them.

    The rows that migrations made may be gone, because a test whose rows are committed empties all tables at its end.
    `orders.tests.factories` makes the console's groups again.
    """
    processes = Processes(tmp_path / "processes")
    try:
        yield processes
    finally:
        processes.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show the output of the processes of a test that failed."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    used = getattr(item, "funcargs", {}).get("processes")
    if report.failed and isinstance(used, Processes):
        report.sections += [(f"Output of {process.name}", process.output) for process in used]
    return report  # type: ignore[return-value]
