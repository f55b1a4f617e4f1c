"""Gauges of incidents, read from rows when Prometheus asks."""

from django.conf import settings
from prometheus_client import Metric

from quiktrade.alerts.judging import UNJUDGED, kinds
from quiktrade.database.statements import fetch
from quiktrade.metrics.gauges import gauge

_OPEN = """
SELECT kind, count(*) FROM quiktrade_incident WHERE resolved_at IS NULL AND opened_at IS NOT NULL GROUP BY kind
"""
_UNSENT = """
SELECT GREATEST(0, extract(epoch FROM statement_timestamp() - min(created_at)))::float8 FROM quiktrade_notice
WHERE sent_at IS NULL AND given_up_at IS NULL AND tries > 0 AND channel = ANY(%(channels)s)
"""


def incidents() -> list[Metric]:
    channels = [channel.name for channel in settings.ALERTS]
    found = {name: 0 for name, kind in kinds().items() if kind not in UNJUDGED} | dict(fetch(_OPEN, {}))
    return [
        gauge(
            "incidents_open",
            "Incidents that are open, acknowledged or not, by kind.",
            [((kind,), count) for kind, count in sorted(found.items())],
            "kind",
        ),
        gauge(
            "alert_unsent_seconds",
            "For how long a channel could not be told what it is to be told. 0 if all were.",
            [((), fetch(_UNSENT, {"channels": channels})[0][0])],
        ),
    ]
