"""The simulated exchange's life: remember, bind, listen, say so, stop when told."""

import asyncio
import contextlib
import errno
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, time, timedelta

import uvloop
from aiohttp import web

from exchanges.simulator.admin_port import AdminPort
from exchanges.simulator.exchange import Exchange
from exchanges.simulator.gate import Gate
from exchanges.simulator.journal import JournalError, open_journal
from exchanges.simulator.liquidity import Liquidity
from exchanges.simulator.market import Market
from exchanges.simulator.mishaps import Mishaps
from exchanges.simulator.options import Options
from exchanges.simulator.order_port import OrderPort
from exchanges.simulator.reads import Reads
from exchanges.simulator.stream import Streams

GRACE_SECONDS = 0.5
"""For requests under way when it stops or starts to refuse; aiohttp may wait it twice. `up` allows more."""

OPEN_FILES = 8192

TICK_SECONDS = 0.2


class CannotRun(Exception):
    """The exchange did not start, or had to stop; the text says why, in one line."""


def run(options: Options) -> None:
    """Serve until SIGTERM or SIGINT. Raises: CannotRun."""
    _allow_many_connections()
    try:
        uvloop.run(_serve(options))
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
    market = Market() if options.matching else None
    journal, ledger = open_journal(options.journal, fsync=options.fsync, observe=market.observe if market else None)
    exchange = Exchange(journal, ledger, options.rules, market)
    reads = Reads(exchange, options.faults)

    def lost_memory(error: JournalError) -> None:
        if not stopped.done():
            stopped.set_exception(error)

    streams = Streams(exchange, options.faults)
    Mishaps(exchange, options.faults, lost_memory)
    order_port = OrderPort(exchange, options.faults, reads, streams, lost_memory)
    with _explained(options.port):
        gate = Gate(options.host, options.port, order_port.handle)
    one_at_a_time = asyncio.Lock()

    async def apply_faults() -> None:
        async with one_at_a_time:
            if "refuse" in options.faults:
                await gate.close(grace_seconds=GRACE_SECONDS)
            else:
                await gate.open()

    admin_port = AdminPort(exchange, options.faults, reads, apply_faults, lost_memory)
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
        tasks = [asyncio.create_task(_pass_time(exchange, options.closes_at, lost_memory))]
        if options.liquidity:
            liquidity = Liquidity(exchange, options.liquidity, options.faults.seed, lost_memory)
            tasks.append(asyncio.create_task(liquidity.run()))
        try:
            await stopped
        finally:
            for task in tasks:
                task.cancel()
    finally:
        await asyncio.gather(gate.close(grace_seconds=GRACE_SECONDS), runner.cleanup())
        gate.release()
        ledger.close()
        journal.close()


async def _pass_time(exchange: Exchange, closes_at: time | None, lost_memory: Callable[[JournalError], None]) -> None:
    """Have orders that are good till a date end when it comes, and not only when the next order comes; end the day."""
    now = datetime.now(UTC)
    try:
        while True:
            earlier, now = now, datetime.now(UTC)
            exchange.pass_time(now)
            if closes_at is not None and is_between(earlier, closes_at, now):
                exchange.close(now)
            await asyncio.sleep(TICK_SECONDS)
    except JournalError as error:
        lost_memory(error)


def is_between(earlier: datetime, at: time, now: datetime) -> bool:
    """Tell whether it became this time of the day after `earlier` and not after `now`."""
    latest = datetime.combine(now.date(), at, tzinfo=UTC)
    if latest > now:
        latest -= timedelta(days=1)
    return earlier < latest


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
