"""Probes. `/healthz` says that this process answers; `/readyz` that orders can be accepted, and will be placed.

Only the database decides whether `/readyz` fails. Without a working job cluster orders are still accepted and
wait, so taking this process out of service would turn trouble behind the API into trouble of the API: that
is *degraded*, for the alarm and not for the load balancer. `/readyz?strict` fails for either.
"""

import logging
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection
from django.db.models import F, Max
from django.db.models.functions import Now
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from orders import selectors
from quiktrade.models import WorkerNode

logger = logging.getLogger(__name__)

DUE_TOO_LONG_SECONDS = 30.0


@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": "ok"})


@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """`{"status": "ready" | "degraded" | "unavailable", "checks": {name: {"ok": …, …}}}`."""
    try:
        checks = {"database": _database(), "job_cluster": _job_cluster(), "oldest_due_order": _oldest_due_order()}
    except DatabaseError as error:
        logger.error("Not ready", extra={"event": "health.unavailable", "error": str(error).strip()})
        checks = {"database": {"ok": False, "detail": "The database cannot be reached or is read-only."}}
    if not checks["database"]["ok"]:
        status = "unavailable"
    else:
        status = "ready" if all(check["ok"] for check in checks.values()) else "degraded"
    failed = status == "unavailable" or (status == "degraded" and "strict" in request.GET)
    return JsonResponse({"status": status, "checks": checks}, status=503 if failed else 200)


def _database() -> dict[str, Any]:
    """It answers, and it is the primary: a standby could not store an order."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_is_in_recovery()")
        (standby,) = cursor.fetchone()
    return {"ok": False, "detail": "This is a standby."} if standby else {"ok": True}


def _job_cluster() -> dict[str, Any]:
    # One of the future was written before the database's clock was set back: it says nothing of now.
    credible = WorkerNode.objects.filter(heartbeat_at__lt=Now() + timedelta(seconds=settings.JOBS_STALE_SECONDS))
    newest = credible.aggregate(age=Now() - Max(F("heartbeat_at")))["age"]
    if newest is None:
        return {"ok": False, "detail": "No worker node has ever reported."}
    return {
        "ok": newest <= timedelta(seconds=settings.JOBS_STALE_SECONDS),
        "heartbeat_age_seconds": round(newest.total_seconds(), 1),
    }


def _oldest_due_order() -> dict[str, Any]:
    due = selectors.work_due().place
    overdue = max(0.0, -due) if due is not None else 0.0
    return {"ok": overdue <= DUE_TOO_LONG_SECONDS, "overdue_seconds": round(overdue, 1)}


PROBES = {"/healthz": healthz, "/readyz": readyz}
"""By path. Not among the addresses in urls.py: `middleware.probes` answers them before all else."""
