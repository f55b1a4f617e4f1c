"""`manage.py place_orders`: place what is due, here and now."""

import asyncio
import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import CommandParser
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from exchanges.models import Venue
from orders.attention import due_orders
from orders.engine import Engine
from orders.lifecycle import Event, MovedOrder
from quiktrade.management.operator_command import OperatorCommand, misuse, refuse

OUTCOMES = {
    Event.ACKNOWLEDGED: "placed",
    Event.REJECTED_BY_VENUE: "rejected",
    Event.NOT_SENT: "not_sent",
    Event.VENUE_UNREACHABLE: "not_sent",
    Event.TURNED_AWAY: "not_sent",
    Event.OUTCOME_UNKNOWN: "unconfirmed",
}
NAMES = tuple(dict.fromkeys(OUTCOMES.values()))


class Command(OperatorCommand):
    acts = False
    help = """Place the orders that are due, in the foreground, until none is left.

It does what the worker does, and may run beside it: no order is taken twice. Orders that do not reach their
venue wait for their next attempt as usual; Ctrl-C finishes what is under way."""
    examples = """\
  manage.py place_orders
  manage.py place_orders --seconds 30 --json
"""

    def add_arguments(self, parser: CommandParser) -> None:
        help_ = "claim for this long at most (%(default)g); what is under way then is finished"
        parser.add_argument("--seconds", type=float, default=3600.0, metavar="N", help=help_)
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if not 0 < options["seconds"] < float("inf"):
            misuse("--seconds must be greater than 0.")
        started, outcomes = time.monotonic(), Counter[str]()
        with _progress() as show:

            def recorded(moved: list[MovedOrder]) -> None:
                outcomes.update(OUTCOMES[Event(order.event)] for order in moved)
                show(outcomes)

            asyncio.run(_drain(options["seconds"], recorded))
        seconds = round(time.monotonic() - started, 3)
        halted = list(Venue.objects.filter(halted_at__isnull=False).values_list("code", flat=True))
        document = {
            **{name: outcomes[name] for name in NAMES},
            "seconds": seconds,
            "still_due": due_orders().count(),
            "halted_venues": halted,
        }
        counted = ", ".join(f"{outcomes[name]} {name.replace('_', ' ')}" for name in NAMES)
        waits = f" Halted, so not served: {', '.join(halted)}." if halted else ""
        self.tell(options, document, f"{counted} in {seconds} s; {document['still_due']} still due.{waits}")
        if trouble := outcomes.total() - outcomes["placed"]:
            refuse(f"{trouble} of {outcomes.total()} not placed.")


async def _drain(seconds: float, recorded: Callable[[list[MovedOrder]], None]) -> None:
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    engine = Engine()
    try:
        await engine.run(seconds=seconds, stopping=interrupted.is_set, recorded=recorded)
    finally:
        await engine.close()


@contextmanager
def _progress() -> Iterator[Callable[[Counter[str]], None]]:
    """A progress bar on standard error, if that is a terminal. The figures follow it in any case."""
    if not sys.stderr.isatty():
        yield lambda outcomes: None
        return
    notes = TextColumn("{task.fields[notes]}")
    columns = (TextColumn("Placing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), notes)
    logging.getLogger("orders").setLevel(logging.ERROR)  # the figures report failures; log lines would break the bar
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=due_orders().count(), notes="")

        def show(outcomes: Counter[str]) -> None:
            done = outcomes.total()
            notes = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in outcomes.items())
            total = max(done, int(progress.tasks[0].total or 0))
            progress.update(task, completed=done, total=total, notes=notes)

        yield show
