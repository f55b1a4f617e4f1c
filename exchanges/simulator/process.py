"""The simulated exchange's life: remember, bind, listen, say so, stop when told."""

import asyncio
import contextlib
import errno
import resource
import signal
import sys
from collections.abc import Iterator

from aiohttp import web

from exchanges.simulator.admin_port import AdminPort
from exchanges.simulator.exchange import Exchange
from exchanges.simulator.gate import Gate
from exchanges.simulator.journal import JournalError, open_journal
from exchanges.simulator.options import Options
from exchanges.simulator.order_port import OrderPort
from exchanges.simulator.reads import Reads

GRACE_SECONDS = 0.5
"""For requests under way when it stops or starts to refuse; aiohttp may wait it twice. `up` allows more."""

OPEN_FILES = 8192


class CannotRun(Exception):
    """The exchange did not start, or had to stop; the text says why, in one line."""


def run(options: Options) -> None:
    """Serve until SIGTERM or SIGINT. Raises: CannotRun."""
    _allow_many_connections()
    try:
        asyncio.run(_serve(options))
    except JournalError as error:
        raise CannotRun(str(error)) from error


def _allow_many_connections() -> None:
    """Raise the soft limit on open files, often 1,024: less than a worker's connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _serve(options: Options) -> None:
    stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    _stop_on_signals(stopped)
    journal, ledger = open_journal(options.journal, fsync=options.fsync)
    exchange = Exchange(journal, ledger, options.rules)
    reads = Reads(exchange, options.faults)

    def lost_memory(error: JournalError) -> None:
        if not stopped.done():
            stopped.set_exception(error)

    order_port = OrderPort(exchange, options.faults, reads, lost_memory)
    with _explained(options.port):
        gate = Gate(options.host, options.port, order_port.handle)
    one_at_a_time = asyncio.Lock()

    async def apply_faults() -> None:
        async with one_at_a_time:
            if "refuse" in options.faults:
                await gate.close(grace_seconds=GRACE_SECONDS)
            else:
                await gate.open()

    admin_port = AdminPort(options.faults, reads, apply_faults)
    runner = web.AppRunner(admin_port.application, access_log=None, shutdown_timeout=GRACE_SECONDS)
    try:
        await runner.setup()
        with _explained(options.port):
            await apply_faults()
        with _explained(options.admin_port):
            await web.TCPSite(runner, gate.host, options.admin_port).start()
        sys.stdout.write(
            f"Simulated exchange ready: orders {_url(gate.host, gate.port)}, "
            f"admin {_url(gate.host, runner.addresses[0][1])}, "
            f"journal {journal.path} ({len(ledger)} orders)\n"
        )
        sys.stdout.flush()
        await stopped
    finally:
        await asyncio.gather(gate.close(grace_seconds=GRACE_SECONDS), runner.cleanup())
        gate.release()
        ledger.close()
        journal.close()


def _stop_on_signals(stopped: asyncio.Future[None]) -> None:
    def stop() -> None:
        if not stopped.done():
            stopped.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)


@contextlib.contextmanager
def _explained(port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = "it is in use" if error.errno == errno.EADDRINUSE else error.strerror
        raise CannotRun(f"cannot listen on port {port}: {reason}") from error


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
