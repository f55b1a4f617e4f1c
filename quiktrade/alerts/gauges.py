"""Gauges of incidents, read from rows when Prometheus asks."""

from prometheus_client import Metric

from quiktrade.alerts.judging import UNJUDGED, kinds
from quiktrade.database.statements import fetch
from quiktrade.metrics.gauges import gauge

_OPEN = """
SELECT kind, count(*) FROM quiktrade_incident WHERE resolved_at IS NULL AND opened_at IS NOT NULL GROUP BY kind
"""
_UNSENT = """
SELECT GREATEST(0, extract(epoch FROM statement_timestamp() - min(i.first_seen_at)))::float8
FROM quiktrade_notice n JOIN quiktrade_incident i ON i.id = n.incident_id
WHERE n.sent_at IS NULL AND n.given_up_at IS NULL AND n.tries > 0
"""


def incidents() -> list[Metric]:
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
            "Age of the oldest incident of which a channel could not be told yet. 0 if all were.",
            [((), fetch(_UNSENT, {})[0][0])],
        ),
    ]
