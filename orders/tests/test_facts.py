"""The facts of an order and the status that follows from them, whatever the order in which a venue's reports come."""

import os
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchanges.venue import ExecutionReport, ReportKind
from orders.facts import Facts, fold, standing
from orders.models import AT_VENUE
from orders.tests import appendix_d
from orders.tests.appendix_d import QUANTITY, SCENARIOS, Scenario, Step

ORDER = "019a0000-0000-7000-8000-000000000001"
EXAMPLES = int(os.environ.get("QUIKTRADE_TEST_EXAMPLES", "150"))


def shown(status: str, facts: Facts, expected: Step) -> Step:
    """What is known, beside what is expected: an average price only where one is expected."""
    average = facts.value / facts.filled if expected.average_price is not None else None
    return Step(expected.message, status, facts.filled, facts.leaves, average)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_scenario_of_the_appendix_shows_what_its_table_says(scenario: Scenario) -> None:
    facts, status, got = Facts(QUANTITY, multi_day=scenario.time_in_force == "gtc"), "submitting", []
    for sequence, step in enumerate(scenario.steps, 1):
        if request := appendix_d.asked(step.message, ORDER):
            verb, request_id = request
            facts = (
                replace(facts, open_cancel=request_id) if verb == "cancel" else replace(facts, open_replace=request_id)
            )
            status = standing(facts) if status in AT_VENUE else status
        elif (after := fold(facts, appendix_d.report(step.message, ORDER, sequence))) is not None:
            facts, status = after, standing(after)
        got.append(shown(status, facts, step))
    assert got == list(scenario.steps)


def test_the_table_is_read_whole() -> None:
    assert (len(SCENARIOS), sum(len(scenario.steps) for scenario in SCENARIOS)) == (49, 245)
    assert {scenario.source for scenario in SCENARIOS} == {"read", "text", "tests", "recalled", "ours"}


def said(kind: ReportKind, **more: object) -> ExecutionReport:
    return ExecutionReport(sequence=0, kind=kind, client_order_id=ORDER, **more)  # type: ignore[arg-type]


def folded(reports: Iterable[ExecutionReport], facts: Facts) -> Facts:
    for report in reports:
        facts = fold(facts, report) or facts
    return facts


PRICES = st.integers(1, 10**18 - 1).map(lambda number: Decimal(number).scaleb(-8))
AMOUNTS = st.tuples(st.integers(1, 400), PRICES)


@st.composite
def lives(draw: st.DrawFn) -> list[ExecutionReport]:
    """All that a venue says about one order: executions, what became of them in up to three steps, an end or none."""
    reports = [said(ReportKind.ACKNOWLEDGED)]
    for number, chain in enumerate(draw(st.lists(st.lists(st.none() | AMOUNTS, min_size=1, max_size=4), max_size=5))):
        last = ""
        for place, amount in enumerate(chain):
            if amount is None and not last:
                continue
            kind = ReportKind.BUSTED if amount is None else ReportKind.CORRECTED if last else ReportKind.EXECUTED
            quantity, price = amount or (0, None)
            name = f"{number}-{place}"
            reports.append(said(kind, execution_id=name, refers_to=last, quantity=quantity, price=price))
            last = name
    ends = ("canceled", "expired", "cancel_refused")
    if end := draw(st.sampled_from(("", *ends))):
        kind = ReportKind(end)
        reports.append(replace(said(kind), client_order_id="cancel" if end == "cancel_refused" else ORDER))
    return reports


def check_that_deliveries_end_alike(reports: list[ExecutionReport], data: st.DataObject) -> None:
    begin = Facts(1000, open_cancel="cancel", open_replace="replace")
    repeated = reports + data.draw(st.lists(st.sampled_from(reports), max_size=5))
    delivered = data.draw(st.permutations(repeated))
    once, again = folded(reports, begin), folded(delivered, begin)
    assert (standing(again), again.leaves) == (standing(once), once.leaves)
    assert again == once
    replaced = {report.refers_to for report in reports}
    counting = [report for report in reports if report.execution_id and report.execution_id not in replaced]
    assert once.filled == sum(report.quantity for report in counting)


@settings(max_examples=EXAMPLES, deadline=None)
@given(reports=lives(), data=st.data())
def test_late_early_repeated_and_shuffled_reports_end_alike(
    reports: list[ExecutionReport], data: st.DataObject
) -> None:
    check_that_deliveries_end_alike(reports, data)


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
@settings(max_examples=20_000, deadline=None)
@given(reports=lives(), data=st.data())
def test_many_more_deliveries_end_alike(reports: list[ExecutionReport], data: st.DataObject) -> None:
    check_that_deliveries_end_alike(reports, data)


def test_a_repeated_report_says_nothing_new() -> None:
    facts = Facts(1000)
    for report in (
        said(ReportKind.EXECUTED, execution_id="B", quantity=100, price=Decimal("10.5")),
        said(ReportKind.CORRECTED, execution_id="C", refers_to="B", quantity=90, price=Decimal("10.5")),
        said(ReportKind.BUSTED, execution_id="D", refers_to="C"),
        said(ReportKind.RESTATED, quantity=900),
        said(ReportKind.DONE_FOR_DAY),
        said(ReportKind.CANCELED),
    ):
        after = fold(facts, report)
        assert after is not None
        assert fold(after, report) is None
        facts = after


def test_values_of_the_largest_orders_are_exact() -> None:
    price = Decimal("9999999999.99999999")
    fills = [said(ReportKind.EXECUTED, execution_id=str(n), quantity=10**15 - 1, price=price) for n in range(3)]
    facts = folded(fills, Facts(10**15))
    assert facts.value == Decimal("29999999999999969970000000.00000003")
    assert folded([said(ReportKind.BUSTED, execution_id="X", refers_to="0")], facts).value == Decimal(
        "19999999999999979980000000.00000002"
    )
