"""`python -m benchmarks.speed.naive COMMAND`: django-q2's own commands, and `submit COUNT` and `notify COUNT`."""

import os
import sys

import django
from django.core.management import call_command, execute_from_command_line

from quiktrade import processes


def main() -> None:
    processes.end_with_parent()
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.speed.naive.settings"
    django.setup()

    # Its models need the settings. It is imported for a cluster, too: the workers are forked from this process.
    from benchmarks.speed.naive import tasks

    store = {"submit": tasks.submit, "notify": tasks.notify}.get(sys.argv[1])
    if store is None:
        execute_from_command_line(sys.argv)
        return
    call_command("migrate", run_syncdb=True, verbosity=0)
    store(int(sys.argv[2]))


main()
