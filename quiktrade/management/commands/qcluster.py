import sys
from typing import Any

from django.core.management.base import BaseCommand

from quiktrade.jobs import cluster
from quiktrade.management.operator_command import DJANGOS_OPTIONS


class Command(BaseCommand):
    help = "Run one job cluster in the foreground, without the watchdog. For everyday use: run_worker."
    # run_worker has made the checks. They load the API and the console, which no job needs and each process would keep.
    requires_system_checks = ()
    suppressed_base_arguments = DJANGOS_OPTIONS

    def handle(self, *args: Any, **options: Any) -> None:
        sys.exit(cluster.run())
