"""`python -m benchmarks.speed.naive COMMAND`: django-q2's own commands, and `submit COUNT`."""

import os
import sys

import django
from django.core.management import call_command, execute_from_command_line

from quiktrade import processes


def main() -> None:
    processes.end_with_parent()
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.speed.naive.settings"
    if sys.argv[1] != "submit":
        execute_from_command_line(sys.argv)
        return
    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)

    from benchmarks.speed.naive import tasks  # its models need the settings

    tasks.submit(int(sys.argv[2]))


main()
