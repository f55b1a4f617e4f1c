import asyncio
import logging
import os
import signal
import sys
from typing import Any

import uvloop
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, connection

from exchanges import directory
from exchanges.models import Venue
from orders.venue_session import run_sessions
from quiktrade import memory
from quiktrade.database.connection import SESSION, bound_waits
from quiktrade.management.operator_command import DJANGOS_OPTIONS
from quiktrade.metrics import listener
from quiktrade.tracing import spans

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = (
        "Read what venues report of their orders (executions, ends, answers to cancels and replaces) until SIGTERM or "
        "Ctrl-C. It may run on any number of nodes: one of them reads each venue, and another takes over when that one "
        "dies or stops working."
    )
    suppressed_base_arguments = DJANGOS_OPTIONS

    def add_arguments(self, parser: CommandParser) -> None:
        help_ = "read these venues only; without it, all venues that report"
        parser.add_argument("venue", nargs="*", metavar="CODE", help=help_)

    def handle(self, *args: Any, **options: Any) -> None:
        bound_waits(SESSION)
        codes = [code.upper() for code in options["venue"]]
        _refuse(codes)
        connection.close()  # the sessions have their own
        listener.serve()
        spans.start("session")
        memory.settle()  # each batch of reports makes thousands of objects, and all older ones were examined for them
        in_time = uvloop.run(_run(codes))
        spans.end()
        if not in_time:
            # A thread still waits for the database, which does not answer. What it began is not committed, or is.
            logger.error("Sessions of venues did not end in time", extra={"event": "session.ended_late"})
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)


async def _run(codes: list[str]) -> bool:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    in_time = await run_sessions(codes, stop)
    logger.info("Sessions of venues ended", extra={"event": "session.all_ended", "in_time": in_time})
    return in_time


def _refuse(codes: list[str]) -> None:
    """Raises: CommandError for a venue that has no session."""
    try:
        rows = {row.code: row for row in Venue.objects.filter(code__in=codes)} if codes else {}
    except OperationalError:  # it will be there in time
        return
    for code in codes:
        if code not in rows:
            raise CommandError(f"There is no venue {code}.")
        capabilities = directory.capabilities_if_usable(rows[code])
        if capabilities is not None and not capabilities.reports:
            raise CommandError(f"The adapter of {code} reports nothing by itself, so there is no session to run.")
