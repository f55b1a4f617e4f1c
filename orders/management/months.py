"""How commands name months of the archive, and show them."""

import argparse
import re
from datetime import date
from typing import Any

from rich.table import Table

from orders.archive_models import ArchiveMonth
from quiktrade.console.times import stamp


def month(text: str) -> date:
    found = re.fullmatch(r"([0-9]{4})-(0[1-9]|1[0-2])", text, re.ASCII)
    if found is None or found[1] == "0000":
        raise argparse.ArgumentTypeError(f"{text!r} is not a month; write 2026-01")
    return date(int(found[1]), int(found[2]), 1)


def month_document(row: ArchiveMonth) -> dict[str, Any]:
    return {
        "month": f"{row.month:%Y-%m}",
        "orders": row.orders,
        "exported_at": row.exported_at,
        "exported": row.orders > 0 and row.exported_version == row.version,
        "dropped_at": row.dropped_at,
    }


def month_table(rows: list[ArchiveMonth]) -> Table:
    table = Table("Month", "Orders", "Exported", "Dropped")
    for row in rows:
        exported = stamp(row.exported_at) if row.exported_at else "no"
        if row.exported_at and row.exported_version != row.version:
            exported += ", changed since"
        table.add_row(
            f"{row.month:%Y-%m}",
            f"{row.orders:,}",
            exported if row.orders else "",
            stamp(row.dropped_at) if row.dropped_at else "begun" if row.dropping_at else "",
        )
    return table
