"""`manage.py move_orders`: move orders that ended long ago to the archive, here and now."""

import logging
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import CommandParser
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from orders import archive, retention
from orders.retention import Run
from quiktrade.management.operator_command import OperatorCommand, misuse, refuse

LEAST_DAYS = 8


class Command(OperatorCommand):
    acts = False
    help = """Move orders that ended long ago to the archive, with their events, executions and requests.

The worker does the same all the time where QUIKTRADE_KEEP_DAYS is set, and this may run beside it. Ctrl-C ends the
command after the batch under way; what is left is moved by the next run. An order stays while something of it is not
over: a request, or an event that a webhook has yet to be told of."""
    examples = """\
  manage.py move_orders --dry-run
  manage.py move_orders --rate 5000
  manage.py move_orders --keep-days 400 --seconds 3600 --json
"""

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("--keep-days", type=int, metavar="N", help="of orders that ended before so many days (QUIKTRADE_KEEP_DAYS)")
        add("--seconds", type=float, default=86_400.0, metavar="N", help="for this long at most (%(default)g)")
        add("--rate", type=float, metavar="N", help="at most so many orders a second (as fast as it goes)")
        add("--dry-run", action="store_true", help="only count the orders that would be moved")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        before = _before(options["keep_days"])
        for name in ("seconds", "rate"):
            if options[name] is not None and not 0 < options[name] < float("inf"):
                misuse(f"--{name} must be greater than 0.")
        if options["dry_run"]:
            self._count(options, before)
            return
        started = time.monotonic()
        with _interrupted() as stop, _progress(before) as show:
            run = retention.move_orders(
                before, seconds=options["seconds"], rate=options["rate"], stopping=stop.is_set, progress=show
            )
        seconds = round(time.monotonic() - started, 3)
        document = {**run.moved._asdict(), "left": run.left, "waiting": run.waiting, "seconds": seconds}
        counted = ", ".join(f"{count:,} {name}" for name, count in run.moved._asdict().items())
        stay = f" {run.left:,} orders stay for now: something of them is not over." if run.left else ""
        self.tell(options, document, f"Moved {counted} in {seconds} s.{stay}")
        if run.waiting:
            refuse("An older transaction did not end in this time. Nothing more is moved while it runs.")

    def _count(self, options: dict[str, Any], before: datetime) -> None:
        months: Counter[str] = Counter()
        after = retention.BEGINNING
        while ids := archive.candidates(after, before, limit=10 * retention.BATCH):
            months.update(f"{archive.month_of(id_):%Y-%m}" for id_ in ids)
            after = ids[-1]
        total = months.total()
        lines = [f"{month}: {count:,}" for month, count in months.items()]
        lines.append(f"Would move {total:,} orders that ended before {before:%Y-%m-%d %H:%M} UTC. Nothing was changed.")
        self.tell(
            options, {"dry_run": True, "before": before, "orders": total, "months": dict(months)}, "\n".join(lines)
        )


def _before(days: int | None) -> datetime:
    if days is None:
        if (before := retention.ended_before()) is None:
            misuse("Say --keep-days, or set QUIKTRADE_KEEP_DAYS: nothing says which orders are old.")
        return before
    if days < LEAST_DAYS:
        misuse(f"--keep-days must be {LEAST_DAYS} or more: clients may come back for the events of 7 days.")
    return retention.now() - timedelta(days=min(days, 36_500))


@contextmanager
def _interrupted() -> Iterator[threading.Event]:
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(before: datetime) -> Iterator[Callable[[Run], None]]:
    """A progress bar on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda run: None
        return
    columns = (TextColumn("Moving"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    logging.getLogger("orders").setLevel(logging.ERROR)  # log lines would break the bar
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=retention.waiting(before))
        yield lambda run: progress.update(task, completed=run.moved.orders + run.left)
