"""Exports a month of the archive to files, and drops a month that was exported.

A file is complete or not there. The month's version is read before its rows and must be the same afterwards, so nothing
has come or gone meanwhile; no transaction stays open for the length of an export. Only the version that was exported
is dropped, and while a month is dropped nothing is moved to it or brought back from it.
"""

import csv
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import mkstemp
from typing import IO, Any
from uuid import UUID

import orjson
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from orders import archive
from orders.archive_models import ArchiveMonth
from orders.models import Execution, Order, OrderEvent, OrderRequest
from orders.retention import now
from quiktrade.database.statements import fetch
from quiktrade.decimals import decimal_text

BATCH = 1_000
FORMATS = ("jsonl", "csv")
PARTS = {"events": OrderEvent, "executions": Execution, "requests": OrderRequest}
COLUMNS = {name: archive.columns(model) for name, model in {"orders": Order, **PARTS}.items()}
_OF_OWNER = ["owner_id", "owner"]
"""The client's name is exported with its number, which means nothing elsewhere."""


class Refused(Exception):
    """It was not done. The message says why, and what to do."""


@dataclass(slots=True)
class Exported:
    """The files by their names, with the SHA-256 of each; and how many rows of each kind are in them."""

    files: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COLUMNS, 0))


def export(
    month: date, directory: Path, kind: str, *, progress: Callable[[int], None] = lambda orders: None
) -> Exported:
    """Write all orders of a month with all that belongs to them to new files in a directory.

    `jsonl` is one file with an order on each line; `csv` is a file for each kind of row. Raises: Refused, OSError.
    """
    version = ArchiveMonth.objects.filter(month=month, orders__gt=0).values_list("version", flat=True).first()
    if version is None:
        raise Refused(f"There is nothing of {month:%Y-%m} in the archive.")
    name = f"orders-{month:%Y-%m}.v{version}"
    exported = Exported()
    with ExitStack() as stack:
        write = (_jsonl if kind == "jsonl" else _csv)(stack, directory, name, exported)
        for orders, parts in _batches(month):
            write(orders, parts)
            exported.rows["orders"] += len(orders)
            for part, rows in parts.items():
                exported.rows[part] += len(rows)
            progress(exported.rows["orders"])
        month_now = ArchiveMonth.objects.filter(month=month, version=version, dropping_at__isnull=True)
        if month_now.values_list("orders", flat=True).first() != exported.rows["orders"]:
            raise Refused(f"Orders came to {month:%Y-%m} or went meanwhile: export it again.")
    with _new_file(directory / f"{name}.{kind}.sha256", Exported()) as file:
        file.writelines(f"{digest}  {file_name}\n" for file_name, digest in exported.files.items())
    ArchiveMonth.objects.filter(month=month, version=version).update(exported_version=version, exported_at=Now())
    return exported


Rows = Sequence[Mapping[str, Any]]
Write = Callable[[Rows, Mapping[str, Rows]], None]


def _batches(month: date) -> Iterator[tuple[Rows, dict[str, Rows]]]:
    names: dict[int, str] = {}
    after, end = archive.first_id_of(month), archive.first_id_of(archive.next_month(month))
    after = UUID(int=after.int - 1)
    while orders := _read("orders", _ORDERS, {"after": after, "end": end}):
        ids, after = [order["id"] for order in orders], orders[-1]["id"]
        if missing := {order["owner_id"] for order in orders} - names.keys():
            names |= dict(get_user_model().objects.filter(pk__in=missing).values_list("pk", "username"))
        parts: dict[str, Rows] = {name: _read(name, statement, {"ids": ids}) for name, statement in _PARTS.items()}
        for order in orders:
            order["owner"] = names.get(order["owner_id"], "")
        yield orders, parts


_ORDERS = f"""SELECT {", ".join(COLUMNS["orders"])} FROM {archive.ORDER}
WHERE id > %(after)s AND id < %(end)s ORDER BY id LIMIT {BATCH}"""
_PARTS = {
    name: f"SELECT {', '.join(COLUMNS[name])} FROM {archive.TABLES[model]} WHERE order_id = ANY(%(ids)s)"
    f" ORDER BY order_id, {'sequence' if model is OrderEvent else 'id'}"
    for name, model in PARTS.items()
}


def _read(kind: str, statement: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(COLUMNS[kind], row, strict=True)) for row in fetch(statement, values)]


class _Digesting:
    """A file that is also digested while it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, text: str) -> int:
        data = text.encode()
        self.digest.update(data)
        return self._file.write(data)

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)


@contextmanager
def _new_file(path: Path, exported: Exported) -> Iterator[_Digesting]:
    """A file that gets its name when it is complete and on disk."""
    descriptor, name = mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".part")  # no other export has it open
    draft = Path(name)
    try:
        with open(descriptor, "wb") as file:
            digesting = _Digesting(file)
            yield digesting
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    exported.files[path.name] = digesting.digest.hexdigest()


def _jsonl(stack: ExitStack, directory: Path, name: str, exported: Exported) -> Write:
    file = stack.enter_context(_new_file(directory / f"{name}.jsonl", exported))

    def write(orders: Rows, parts: Mapping[str, Rows]) -> None:
        of_order: dict[UUID, dict[str, list[Any]]] = {order["id"]: {part: [] for part in parts} for order in orders}
        for part, rows in parts.items():
            for row in rows:
                of_order[row["order_id"]][part].append(row)
        for order in orders:
            document = {**order, **of_order[order["id"]]}
            file.write(orjson.dumps(document, default=_told, option=orjson.OPT_UTC_Z).decode() + "\n")

    return write


def _csv(stack: ExitStack, directory: Path, name: str, exported: Exported) -> Write:
    writers = {}
    for part, columns in COLUMNS.items():
        file = stack.enter_context(_new_file(directory / f"{name}.{part}.csv", exported))
        fields = [each for column in columns for each in (_OF_OWNER if column == "owner_id" else [column])]
        if part != "orders":
            fields = columns
        writers[part] = csv.DictWriter(file, fields)
        writers[part].writeheader()

    def write(orders: Rows, parts: Mapping[str, Rows]) -> None:
        for part, rows in {"orders": orders, **parts}.items():
            writers[part].writerows({key: _cell(value) for key, value in row.items()} for row in rows)

    return write


def _told(value: Any) -> Any:
    if isinstance(value, Decimal):
        return decimal_text(value)
    raise TypeError(f"{type(value)} has no form in a file")


def _cell(value: Any) -> Any:
    """A value as it is exact in CSV; null is an empty cell."""
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, dict | list):
        return orjson.dumps(value, default=_told).decode()
    return value


# ---- Dropping ----

_INCOMPLETE = """
UPDATE orders_position p SET incomplete = true, version = p.version + 1
FROM (SELECT DISTINCT owner_id, venue_id, instrument FROM {partition}) e
WHERE p.owner_id = e.owner_id AND p.venue_id = e.venue_id AND p.instrument = e.instrument AND NOT p.incomplete
"""
_FORGET = """
WITH next AS MATERIALIZED (SELECT id FROM {partition} WHERE id > %s ORDER BY id LIMIT {limit}), gone AS (
    DELETE FROM orders_clientkey k USING {partition} o
    WHERE o.id IN (SELECT id FROM next) AND k.order_id = o.id AND k.owner_id = o.owner_id
        AND k.client_order_id = o.client_order_id AND k.of = 'order'
), of_requests AS (
    DELETE FROM orders_clientkey k USING {requests} r
    WHERE r.order_id IN (SELECT id FROM next) AND k.order_id = r.order_id AND k.owner_id = r.owner_id
        AND k.client_order_id = r.client_order_id AND k.of = 'request'
)
SELECT max(id::text)::uuid FROM next
"""


_DROPPING = 7_302_115_620_818
"""The lock of whoever drops a month, for as long as its connection lasts."""


def drop(month: date) -> int:
    """Remove a month's orders, with all that belongs to them, for good. Returns how many orders.

    What was cut short is continued by the next call. Must not be called in a transaction. Raises: Refused.
    """
    with connection.cursor() as cursor:
        try:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [_DROPPING])
            if cursor.fetchone() != (True,):
                raise Refused("Another drop_archive has not ended; it may wait for a long transaction.")
            orders = _begin(month)
            cursor.execute("SET statement_timeout = 0")
            cursor.execute("SET lock_timeout = 0")
            _forget_keys(cursor, month)
            # Its executions go last, and positions are marked before: a month that is half dropped is continued here.
            for table in (archive.REQUEST, archive.EVENT, archive.ORDER, archive.EXECUTION):
                name = archive.partition(table, month)
                if table == archive.EXECUTION and _exists(cursor, name):
                    cursor.execute(_INCOMPLETE.format(partition=name))
                _drop(cursor, table, name)
            ArchiveMonth.objects.filter(month=month).update(
                orders=0, version=F("version") + 1, exported_version=None, dropping_at=None, dropped_at=Now(),
                updated_at=Now(),
            )  # fmt: skip
        finally:
            connection.close()  # with its lock and its time-outs
    return orders


def _begin(month: date) -> int:
    """From now on nothing comes to the month or goes. Returns how many orders are in it."""
    with transaction.atomic():
        row = ArchiveMonth.objects.select_for_update().filter(month=month).first()
        if row is None or (row.dropping_at is None and row.orders == 0):
            raise Refused(f"There is nothing of {month:%Y-%m} in the archive.")
        if row.dropping_at is None:
            if row.exported_version is None:
                raise Refused(f"{month:%Y-%m} was not exported: manage.py export_orders {month:%Y-%m} --to DIRECTORY")
            if row.exported_version != row.version:
                raise Refused(f"Orders came to {month:%Y-%m} or went since it was exported: export it again.")
            # PostgreSQL detaches no partition while it has begun to detach another one of the table.
            if begun := ArchiveMonth.objects.filter(dropping_at__isnull=False).first():
                raise Refused(f"{begun} was begun and not finished: finish drop_archive {begun} first.")
            ArchiveMonth.objects.filter(month=month).update(dropping_at=Now())
    return row.orders


def _forget_keys(cursor: Any, month: date) -> None:
    """Free the clients' ids of a month that is old enough for that."""
    ended = datetime(*archive.next_month(month).timetuple()[:3], tzinfo=UTC)
    names = {
        "partition": archive.partition(archive.ORDER, month),
        "requests": archive.partition(archive.REQUEST, month),
    }
    if not settings.KEEP_KEYS_DAYS or ended > now() - timedelta(days=settings.KEEP_KEYS_DAYS):
        return
    if not all(_exists(cursor, name) for name in names.values()):
        return
    after: UUID | None = UUID(int=0)
    while after is not None:
        cursor.execute(_FORGET.format(**names, limit=BATCH), [after])
        (after,) = cursor.fetchone()


def _exists(cursor: Any, name: str) -> bool:
    cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [name])
    return bool(cursor.fetchone()[0])


def _drop(cursor: Any, table: str, name: str) -> None:
    if not _exists(cursor, name):
        return
    cursor.execute("SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = %s::regclass", [name])
    if (attached := cursor.fetchone()) is not None:
        how = "FINALIZE" if attached[0] else "CONCURRENTLY"  # who reads or writes other months does not wait
        cursor.execute(f"ALTER TABLE {table} DETACH PARTITION {name} {how}")
    cursor.execute(f"DROP TABLE {name}")
