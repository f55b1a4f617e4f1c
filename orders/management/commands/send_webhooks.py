"""`manage.py send_webhooks`: deliver what is due to webhooks, here and now."""

import asyncio
import signal
import time
from typing import Any

from django.core.management.base import CommandParser

from orders.engine import DatabaseThread
from orders.webhooks.delivery import Deliverer
from quiktrade.management.operator_command import OperatorCommand, misuse, refuse


class Command(OperatorCommand):
    acts = False
    help = """Deliver the events that are due to webhooks, in the foreground, until none is due any more.

The worker does the same all the time, and this may run beside it. An event that does not reach its receiver waits for
its next attempt as usual. Ctrl-C ends the command: it waits two seconds for the answers to what is under way, and what
has no answer by then is sent again later."""
    examples = """\
  manage.py send_webhooks
  manage.py send_webhooks --seconds 30 --json
"""

    def add_arguments(self, parser: CommandParser) -> None:
        help_ = "begin no delivery after this many seconds (%(default)g)"
        parser.add_argument("--seconds", type=float, default=3600.0, metavar="N", help=help_)
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if not 0 < options["seconds"] < float("inf"):
            misuse("--seconds must be greater than 0.")
        started = time.monotonic()
        delivered, failed = asyncio.run(_deliver(options["seconds"]))
        seconds = round(time.monotonic() - started, 3)
        document = {"delivered": delivered, "not_delivered": failed, "seconds": seconds}
        self.tell(options, document, f"{delivered} delivered, {failed} not delivered in {seconds} s.")
        if failed:
            refuse(f"{failed} of {delivered + failed} attempts did not reach their receiver. They are made again.")


async def _deliver(seconds: float) -> tuple[int, int]:
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    claims, records = DatabaseThread("claims"), DatabaseThread("records")
    deliverer = Deliverer(claims, records)
    try:
        await deliverer.run(seconds=seconds, stopping=interrupted.is_set)
    finally:
        await claims.close()
        await records.close()
    return deliverer.delivered, deliverer.failed
