"""`manage.py export_orders`: write a month of the archive to files."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from orders import exports
from orders.archive_models import ArchiveMonth
from orders.management.months import month, month_document, month_table
from quiktrade.management.operator_command import OperatorCommand, misuse, refuse


class Command(OperatorCommand):
    acts = False
    help = """Write all archived orders of a month to files: their terms, events, executions and requests.

Without a month, the months of the archive are shown. The files have the month's version in their names, and a file with
their SHA-256 stands beside them. A month must be exported before drop_archive removes it."""
    examples = """\
  manage.py export_orders
  manage.py export_orders 2026-01 --to /var/lib/quiktrade/exports
  manage.py export_orders 2026-01 --to . --format csv --json
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("month", nargs="?", type=month, metavar="MONTH", help="the month, as 2026-01")
        parser.add_argument("--to", type=Path, metavar="DIRECTORY", help="where the files are written")
        help_ = "jsonl: one file, an order on each line; csv: a file for each kind of row (%(default)s)"
        parser.add_argument("--format", choices=exports.FORMATS, default="jsonl", help=help_)
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["month"] is None:
            self._show(options)
            return
        directory = options["to"]
        if directory is None:
            misuse("--to is needed: say where the files are to be written.")
        if not directory.is_dir():
            misuse(f"There is no directory {directory}.")
        try:
            with _progress(options["month"]) as show:
                done = exports.export(options["month"], directory, options["format"], progress=show)
        except exports.Refused as why:
            refuse(str(why))
        except OSError as error:
            refuse(f"The files cannot be written to {directory}: {error.strerror}. Nothing counts as exported.")
        document = {"month": f"{options['month']:%Y-%m}", "directory": str(directory), **done.rows, "files": done.files}
        counted = ", ".join(f"{count:,} {name}" for name, count in done.rows.items())
        files = "\n".join(f"{digest}  {name}" for name, digest in done.files.items())
        self.tell(options, document, f"{files}\nExported {counted}.")

    def _show(self, options: dict[str, Any]) -> None:
        rows = list(ArchiveMonth.objects.order_by("month"))
        if options["json"]:
            self.tell(options, {"months": [month_document(row) for row in rows]}, "")
        elif rows:
            self.show(month_table(rows))
        else:
            self.stdout.write("The archive is empty.")


@contextmanager
def _progress(of: date) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda orders: None
        return
    columns = (TextColumn("Exporting"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        total = ArchiveMonth.objects.filter(month=of).values_list("orders", flat=True).first() or 0
        task = progress.add_task("", total=total)
        yield lambda orders: progress.update(task, completed=orders)
