"""The probes. `/healthz` says that this process answers, `/readyz` that orders can be accepted and will be placed.

Only the database decides whether `/readyz` fails. Without a working job cluster the status is *degraded*, for an alarm
and not for the load balancer: orders are still accepted and wait, and a process that is taken out of service would
accept none. `/readyz?strict` fails for either.

An answer of the database says little: it may be a standby or read-only, its disk may be full, or the standby that a
commit waits for may be away. So it is asked to do what an order needs, at most once a second in each process.
"""

import logging
import threading
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

import psycopg
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection, transaction
from django.db.models import F, Max
from django.db.models.functions import Now
from django.http import HttpRequest, JsonResponse
from django.utils.module_loading import import_string
from django.views.decorators.http import require_safe

from quiktrade.database.durability import NotDurable, confirm, durable
from quiktrade.database.pool import discard, give_back
from quiktrade.models import WorkerNode

logger = logging.getLogger(__name__)

DUE_TOO_LONG_SECONDS = 30.0
UNREAD_TOO_LONG_SECONDS = 30.0
"""A venue that cannot be reached is tried again within 10 s, and a lease of a dead session ends in 5."""
REMEMBER_SECONDS = 1.0
"""The database is asked to write at most once in this time, however many probes there are."""
WRITE_SECONDS = 1.5
"""A write takes milliseconds. One that takes longer than this is cancelled: PostgreSQL itself bounds no commit."""

# The query needs more memory than it may have, so PostgreSQL writes the rest to a temporary file. That needs room on
# the disk, as a growing table does, and changes nothing.
_NEED_ROOM = ("SET LOCAL work_mem = '64kB'", "SELECT count(*) FROM generate_series(1, 8000)")


@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": "ok"})


@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """`{"status": "ready" | "degraded" | "unavailable", "checks": {name: {"ok": …, …}}}`."""
    checks = _checks()
    if not checks["database"]["ok"]:
        status = "unavailable"
    else:
        status = "ready" if all(check["ok"] for check in checks.values()) else "degraded"
    failed = status == "unavailable" or (status == "degraded" and "strict" in request.GET)
    return JsonResponse({"status": status, "checks": checks}, status=503 if failed else 200)


_asking = threading.Lock()
_latest: tuple[float, dict[str, Any]] | None = None


def _checks() -> dict[str, dict[str, Any]]:
    """All probes together use one connection to the database at a time."""
    if not _asking.acquire(timeout=WRITE_SECONDS):
        return {"database": {"ok": False, "detail": "The database is slow to write."}}
    try:
        return {
            "database": _database(),
            "job_cluster": _job_cluster(),
            "oldest_due_order": _oldest_due_order(),
            "venue_reports": _venue_reports(),
        }
    except DatabaseError as error:
        logger.error("Not ready", extra={"event": "health.unavailable", "error": str(error).strip()})
        return {"database": {"ok": False, "detail": "The database cannot be reached or is read-only."}}
    finally:
        give_back()  # the next probe needs it
        _asking.release()


def _database() -> dict[str, Any]:
    """The result of the last second, or a new one."""
    global _latest
    if _latest is None or time.monotonic() - _latest[0] > REMEMBER_SECONDS:
        found = _could_store()
        _latest = (time.monotonic(), found)
    return _latest[1]


def _could_store() -> dict[str, Any]:
    """Whether the database could store an order."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'")
            standby, read_only = cursor.fetchone()
        if standby or read_only:
            discard()  # the next connection may lead to the primary
            return {"ok": False, "detail": "This is a standby." if standby else "The database is read-only."}
        _write()
    except (DatabaseError, NotDurable) as error:
        logger.error("Not ready", extra={"event": "health.cannot_store", "error": str(error).strip()})
        discard()  # it may be closed already, and the other checks need another one
        full = isinstance(error.__cause__, psycopg.errors.DiskFull)
        why = "The database's disk is full." if full else "The database cannot be reached, or cannot write."
        return {"ok": False, "detail": why}
    return {"ok": True}


def _write() -> None:
    """Write, and wait until that is as durable as an order. Raises: DatabaseError, NotDurable."""
    # A commit that waits for a standby ends with a warning when it is cancelled. If the connection were closed
    # instead, the server would go on waiting: one more of its connections would be taken with every probe.
    timer = threading.Timer(WRITE_SECONDS, _cancel, [connection.connection])
    timer.start()
    try:
        with durable(), transaction.atomic():
            with connection.cursor() as cursor:
                for statement in _NEED_ROOM:
                    cursor.execute(statement)
            confirm()
    finally:
        timer.cancel()
        timer.join()  # the next statement on this connection must not be cancelled


def _cancel(raw: Any) -> None:
    with suppress(psycopg.Error):  # the server does not answer at all: the connection closes itself
        raw.cancel_safe(timeout=WRITE_SECONDS)


def _job_cluster() -> dict[str, Any]:
    # A heartbeat in the future was written before the database's clock was set back: it says nothing about now.
    credible = WorkerNode.objects.filter(heartbeat_at__lt=Now() + timedelta(seconds=settings.JOBS_STALE_SECONDS))
    newest = credible.aggregate(age=Now() - Max(F("heartbeat_at")))["age"]
    if newest is None:
        return {"ok": False, "detail": "No worker node has ever reported."}
    return {
        "ok": newest <= timedelta(seconds=settings.JOBS_STALE_SECONDS),
        "heartbeat_age_seconds": round(newest.total_seconds(), 1),
    }


def _oldest_due_order() -> dict[str, Any]:
    due = import_string(settings.JOBS_DUE)()
    overdue = max(0.0, -due) if due is not None else 0.0
    return {"ok": overdue <= DUE_TOO_LONG_SECONDS, "overdue_seconds": round(overdue, 1)}


def _venue_reports() -> dict[str, Any]:
    unread = import_string(settings.SESSIONS_READ)()
    if unread is None:
        return {"ok": True, "detail": "No session of a venue has ever run."}
    return {"ok": unread <= UNREAD_TOO_LONG_SECONDS, "unread_seconds": round(max(0.0, unread), 1)}


PROBES = {"/healthz": healthz, "/readyz": readyz}
"""The probes by path. They are not in urls.py, because `middleware.probes` answers them before anything else."""
