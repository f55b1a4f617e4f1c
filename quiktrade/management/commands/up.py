import argparse
import errno
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseError
from django.db import connections

from quiktrade import file_lock
from quiktrade.local import greeting
from quiktrade.local.greeting import Addresses
from quiktrade.local.log_stream import LogStream, wants_colour
from quiktrade.local.postgres import lease
from quiktrade.local.postgres.server import data_directory, make_directory
from quiktrade.local.postgres.watch import DatabaseWatch
from quiktrade.local.supervisor import Program, Supervisor
from quiktrade.local.venv import ROOT
from quiktrade.management.operator_command import DJANGOS_OPTIONS

PARTS = ("api", "console", "worker", "session", "exchange")
"""In the order in which they are stopped."""

EPILOG = """\
parts, in the order in which they are stopped:
  api         the API, on --port
  console     the operators' console, on --console-port
  worker      the job cluster, which places the orders
  session     reads what the venues report of the orders
  exchange    the simulated exchange: orders on --exchange-port, its faults on the port after it
  database    a private PostgreSQL, where DATABASE_URL is not set: data in .data/pg, a Unix socket, no port

A part that ends is started again. Ctrl-C stops everything; a second Ctrl-C does not wait for it.
An empty database is filled with a venue, an operator for the console and two clients of the API. Their
passwords are shown once. Not so with QUIKTRADE_ENV=production.
API and console answer to localhost; for other names set QUIKTRADE_ALLOWED_HOSTS as well as --host.
QUIKTRADE_WEB_WORKERS sets the processes of the API (2), QUIKTRADE_WEB_THREADS the threads of the console (4).
"""


class Command(BaseCommand):
    help = "Run everything: database, migrations, API, console, worker and simulated exchange."
    requires_system_checks = []  # migrate makes them, when there is a database
    suppressed_base_arguments = DJANGOS_OPTIONS - {"--no-color", "--force-color"}

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        form = argparse.RawDescriptionHelpFormatter
        return super().create_parser(prog_name, subcommand, epilog=EPILOG, formatter_class=form, **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("--host", default="127.0.0.1", metavar="ADDRESS", help="where API and console listen (%(default)s)")
        add("--port", type=_port, default=8000, help="of the API (%(default)s)")
        add("--console-port", type=_port, default=8001, metavar="PORT", help="of the console (%(default)s)")
        add("--exchange-port", type=_port, default=8765, metavar="PORT", help="of the exchange (%(default)s)")
        add("--without", action="append", choices=PARTS, default=[], help="leave a part out; may be repeated")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self._run(options)
        except lease.LocalDatabaseError as error:
            raise CommandError(str(error)) from None
        except OSError as error:  # a full disk says which file only now and then
            raise CommandError(f"{error.filename or data_directory()}: {error.strerror}.") from None
        except KeyboardInterrupt:
            raise CommandError("Interrupted.", returncode=130) from None

    def _run(self, options: dict[str, Any]) -> None:
        addresses = Addresses(
            parts=[part for part in PARTS if part not in options["without"]],
            host=options["host"],
            port=options["port"],
            console_port=options["console_port"],
            exchange_port=options["exchange_port"],
        )
        lock = self._only_one()
        claims = _claim_ports(addresses)
        _refuse_taken_ports(addresses)
        database = lease.use()

        colour = not options["no_color"] and (options["force_color"] or wants_colour(sys.stdout))
        log = LogStream(sys.stdout, ["database", *PARTS], colour=colour)
        passwords = _prepare(log, addresses)
        operator, client = _demo().OPERATOR, _demo_client()
        connections.close_all()  # this process asks nothing more, so a pause of the database need not affect it
        greeting.announce(addresses, log, greeting.greeting(addresses, passwords, operator=operator, client=client))
        inherited = [lock, database.descriptor] if database else [lock]
        supervisor = Supervisor(_programs(addresses), log, ROOT, inherited)
        watch = DatabaseWatch(database, log) if database else None
        try:
            supervisor.run(watch.tend if watch else lambda: None)
        finally:
            if database:
                database.release()
            for claim in claims:
                os.close(claim)
        log.say("Stopped.")

    def _only_one(self) -> int:
        """Hold a lock that the children inherit, so that processes that a killed `up` left running are noticed, too."""
        make_directory(data_directory())
        path = data_directory() / "up.lock"
        lock = file_lock.open_lock(path)
        deadline = time.monotonic() + 20
        waiting = False
        while not file_lock.try_lock(lock):
            number = path.read_text().strip()
            if number and _runs(int(number)):
                raise CommandError(f"`up` already runs here, as process {number}. Stop it there with Ctrl-C.")
            if time.monotonic() > deadline:
                raise CommandError("Processes of an `up` that was killed do not end. `ps` shows them.")
            if not waiting:
                self.stderr.write("Waiting for the processes of an `up` that was killed to end")
                waiting = True
            time.sleep(0.1)
        path.write_text(str(os.getpid()))
        return lock


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65534:
        raise argparse.ArgumentTypeError("a number from 1 to 65534 is needed")
    return int(text)


def _ports(addresses: Addresses) -> Iterator[tuple[str, str, int]]:
    """Option, host and number of each port that the parts will listen on."""
    if "api" in addresses.parts:
        yield "--port", addresses.host, addresses.port
    if "console" in addresses.parts:
        yield "--console-port", addresses.host, addresses.console_port
    if "exchange" in addresses.parts:
        for port in (addresses.exchange_port, addresses.exchange_port + 1):
            yield "--exchange-port", "127.0.0.1", port


def _claim_ports(addresses: Addresses) -> list[int]:
    """Lock the ports' numbers against another `up` of this user, whose parts do not listen yet.

    The other `up` would find them free, too, and mistake our parts for its own. Returns the descriptors.
    """
    folder = Path(f"/tmp/quiktrade-{os.geteuid()}-ports")  # noqa: S108  not TMPDIR: that may differ between terminals
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise CommandError(f"{folder} is not a directory of yours. Remove it and try again.")
    claims = []
    for option, _, port in _ports(addresses):
        claims.append(file_lock.open_lock(folder / f"{port}.lock"))
        if not file_lock.try_lock(claims[-1]):
            raise CommandError(_port_in_use(option, port))
    return claims


def _refuse_taken_ports(addresses: Addresses) -> None:
    for option, host, port in _ports(addresses):
        _refuse_taken_port(option, host, port)


def _port_in_use(option: str, port: int) -> str:
    return f"Port {port} is in use: set another {option}, or stop that."


def _refuse_taken_port(option: str, host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4]
    except socket.gaierror as error:
        raise CommandError(f"--host {host}: {error.strerror}.") from None
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise CommandError(_port_in_use(option, port)) from None
            raise CommandError(f"Cannot listen on {host}, port {port}: {error.strerror}.") from None


def _runs(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _demo() -> Any:
    return import_module(settings.DEMO)


def _prepare(log: LogStream, addresses: Addresses) -> dict[str, str]:
    """Migrate, and load what an empty database needs. Returns the passwords of the accounts just made."""
    passwords: dict[str, str] = {}
    demo = _demo()
    try:
        call_command("migrate", verbosity=0, interactive=False)
        if not settings.PRODUCTION:
            passwords = demo.load(addresses.exchange)
            if "exchange" in addresses.parts and demo.point_venue_at(addresses.exchange):
                log.say(f"The venue {demo.VENUE} is at {addresses.exchange} from now on.")
    except DatabaseError as error:
        raise CommandError(f"The database cannot be used: {str(error).strip()}") from None
    if passwords:  # at once, because they cannot be shown again, whatever happens next
        accounts = "".join(f"  {name:10} {password}\n" for name, password in passwords.items())
        log.block(f"\nNew accounts, with passwords that are shown only now:\n\n{accounts}\n")
    return passwords


def _demo_client() -> str | None:
    client = get_user_model().objects.filter(username__in=_demo().CLIENTS).order_by("username").first()
    return client.get_username() if client else None


def _programs(addresses: Addresses) -> list[Program]:
    python, manage = sys.executable, str(ROOT / "manage.py")
    gunicorn = [python, "-m", "gunicorn", "--config", str(ROOT / "quiktrade" / "web" / "gunicorn.py"), "--bind"]
    api, console = addresses.bind(addresses.port), addresses.bind(addresses.console_port)
    exchange = [python, manage, "run_exchange", "--port", str(addresses.exchange_port), "--liquidity", "1"]
    # All must end within 15 s. A worker may take 12 of them to finish what it has in flight at a venue.
    programs = [
        Program(name="api", command=[*gunicorn, api], patience=1.4, deadline=6.0, environment=_service("api")),
        Program(
            name="console",
            command=[*gunicorn, console],
            patience=1.4,
            deadline=6.0,
            environment=_service("console"),
        ),
        Program(name="worker", command=[python, manage, "run_worker"], patience=13.5, deadline=13.5),
        Program(name="session", command=[python, manage, "run_venue_session"], patience=9.0, deadline=14.0),
        Program(name="exchange", command=exchange, patience=14.3, deadline=14.3),
    ]
    return [program for program in programs if program.name in addresses.parts]


def _service(name: str) -> dict[str, str]:
    return {"QUIKTRADE_SERVICE": name}
