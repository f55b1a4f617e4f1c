"""The alert rules, the dashboard and the table of metrics name only what there is."""

import json
import re
from itertools import combinations
from typing import Any

import pytest
import yaml

import orders.metrics  # noqa: F401  these define their metrics
import quiktrade.metrics.names  # noqa: F401
from orders.tests.factories import VenueFactory
from quiktrade.alerts.judging import kinds
from quiktrade.local.venv import ROOT
from quiktrade.metrics.counting import REGISTRY
from quiktrade.metrics.gauges import FromRows

RULES = yaml.safe_load((ROOT / "observability/quiktrade.rules.yml").read_text())["groups"][0]["rules"]
TESTS = yaml.safe_load((ROOT / "observability/quiktrade.rules.test.yml").read_text())["tests"]
PANELS: list[dict[str, Any]] = json.loads((ROOT / "observability/grafana/quiktrade.json").read_text())["panels"]
DOCUMENTED = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))
EXPRESSIONS = [rule["expr"] for rule in RULES] + [t["expr"] for panel in PANELS for t in panel.get("targets", [])]


def counted() -> set[str]:
    """The counters and histograms that there are, as the table has them."""
    suffix = {"counter": "_total"}
    return {f"{metric.name}{suffix.get(metric.type, '')}" for metric in REGISTRY.collect()}


@pytest.mark.django_db
def test_the_table_of_metrics_has_all_and_no_others() -> None:
    VenueFactory()
    read = {metric.name for metric in FromRows().collect()}
    assert counted() | read == DOCUMENTED


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_rules_and_panels_ask_for_metrics_that_there_are(expression: str) -> None:
    named = {re.sub(r"_(bucket|count|sum)$", "", name) for name in re.findall(r"\bquiktrade_\w+", expression)}
    assert named or expression == 'up{job="quiktrade"} == 0'
    assert named <= DOCUMENTED


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_to_do_and_has_a_test_that_sees_it(rule: dict[str, Any]) -> None:
    document, anchor = rule["annotations"]["runbook"].split("#")
    assert f'| <a id="{anchor}"></a>**{rule["alert"]}**: ' in (ROOT / document).read_text()
    assert anchor == rule["alert"].lower()
    assert rule["labels"]["severity"] in ("page", "ticket")
    seen = [case for test in TESTS for case in test["alert_rule_test"] if case["alertname"] == rule["alert"]]
    assert any(case["exp_alerts"] for case in seen)


def test_the_guide_says_of_every_kind_of_incident_what_to_do() -> None:
    guide = (ROOT / "docs/operations.md").read_text().partition("## Incidents")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)`.* \| .+ \| .+ \|$", guide, re.MULTILINE)
    assert set(rows) == set(kinds()) - {"test"}
    assert len(rows) == len(set(rows))


def test_rules_about_incidents_name_kinds_that_there_are() -> None:
    (expression,) = [rule["expr"] for rule in RULES if rule["alert"] == "IncidentOpen"]
    assert set(re.findall(r'kind=~"(.+?)"', expression)[0].split("|")) <= set(kinds())


def test_no_two_panels_share_an_id_or_a_place() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for one, other in combinations((panel["gridPos"] for panel in PANELS), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in PANELS)


def test_prometheus_scrapes_the_parts_of_the_compose_file_at_their_port() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    (found,) = yaml.safe_load((ROOT / "observability/prometheus.yml").read_text())["scrape_configs"][0][
        "dns_sd_configs"
    ]
    for name in found["names"]:
        assert compose[name]["environment"]["QUIKTRADE_METRICS_PORT"] == found["port"]
        assert not any(str(found["port"]) in port for port in compose[name].get("ports", []))
