from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from quiktrade.jobs import watchdog
from quiktrade.management.operator_command import DJANGOS_OPTIONS


class Command(BaseCommand):
    help = (
        "Run a worker node: the job cluster that places orders, under a watchdog that replaces it when it dies "
        "or stops working. SIGTERM and Ctrl-C let it finish the requests under way. Run as many nodes as you "
        "like against one database, each with a QUIKTRADE_NODE name of its own if they share a host name."
    )
    suppressed_base_arguments = DJANGOS_OPTIONS

    def handle(self, *args: Any, **options: Any) -> None:
        watchdog.become(
            node=settings.NODE_NAME,
            stale_seconds=settings.JOBS_STALE_SECONDS,
            log_level=settings.LOG_LEVEL,
        )
