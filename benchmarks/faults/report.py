"""The figures of a run, as a table and as JSON."""

import bisect
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.faults.records import KINDS, WORKING, Evidence, Row, VenueReport, Violation
from benchmarks.faults.saboteur import Done, windows
from orders.models import AT_VENUE

_HISTORIES = 20
_SLOWEST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Seconds from the 201 until the order was placed."""

    orders: int
    p50: float
    p99: float
    longest: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Latency":
        ordered = sorted(seconds)
        if not ordered:
            return cls(orders=0, p50=0.0, p99=0.0, longest=0.0)

        def quantile(share: float) -> float:
            return round(ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)], 3)

        return cls(orders=len(ordered), p50=quantile(0.5), p99=quantile(0.99), longest=quantile(1.0))

    def __str__(self) -> str:
        return f"p50 {self.p50:.3f} s, p99 {self.p99:.3f} s, max {self.longest:.3f} s ({self.orders} orders)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    seed: int
    seconds: float
    faults: dict[str, int]
    missed: dict[str, int]
    planned: int
    sent: int
    accepted: int
    unanswered: int
    refused_by_the_api: dict[str, int]
    answers: dict[str, int]
    statuses: dict[str, int]
    parked: int
    placed_once: int
    executions: int
    requests: dict[str, int]
    """Cancels and replacements by what came of them."""
    reports: int
    unmatched: int
    told: int
    """Events that clients were told of, over the stream and by webhooks, with repetitions."""
    resends: int
    circuit_openings: int
    overall: Latency
    recovery: Latency
    recovery_limit: float
    slowest: list[str]
    """Ids of the orders that took longest."""
    quiet: bool
    violations: list[Violation]

    @property
    def passed(self) -> bool:
        return not self.violations and self.quiet and not self.own_faults

    @property
    def own_faults(self) -> int:
        """Answers that reported an error on our side. No fault from outside justifies one."""
        return self.answers.get("500", 0) + self.answers.get("stream: 500", 0)

    def as_json(self) -> dict[str, Any]:
        """Every figure by its name; `violations` by kind, each single one in `offenders`."""
        view = {name: getattr(self, name) for name in self.__slots__}
        for name in ("overall", "recovery"):
            latency: Latency = view[name]
            view[name] = {field: getattr(latency, field) for field in latency.__slots__}
        view["violations"] = _by_kind(self.violations)
        view["offenders"] = [violation._asdict() for violation in self.violations]
        return view | {"own_faults": self.own_faults, "passed": self.passed}


def make_report(
    evidence: Evidence,
    violations: list[Violation],
    done: Sequence[Done],
    *,
    seed: int,
    seconds: float,
    planned: int,
    answers: Counter[str],
    openings: int,
    recovery_limit: float,
    quiet: bool,
) -> Report:
    accepted = [told for told in evidence.told if told.accepted_at is not None]
    refused = [told for told in evidence.told if told.accepted_at is None and told.refused]
    live = Counter(entry.client_order_id for entry in evidence.ledger if entry.status == WORKING)
    moments = _placements(evidence)
    took = list(moments.values())
    return Report(
        seed=seed,
        seconds=round(seconds, 1),
        faults=_sorted(Counter(one.fault.kind for one in done if one.hit)),
        missed=_sorted(Counter(f"{one.fault.kind}: {one.note}"[:100] for one in done if not one.hit)),
        planned=planned,
        sent=len(evidence.told),
        accepted=len(accepted),
        unanswered=len(evidence.told) - len(accepted) - len(refused),
        refused_by_the_api=_sorted(Counter(told.refused for told in refused)),
        answers=_sorted(answers),
        statuses=_sorted(Counter(row.status for row in evidence.rows)),
        parked=sum(row.parked for row in evidence.rows),
        executions=len(evidence.executions),
        requests=_sorted(Counter(f"{request.kind} {request.status}" for request in evidence.requests)),
        reports=len(evidence.reports),
        unmatched=evidence.unmatched,
        told=sum(len(listener.heard) for listener in [*evidence.streams, *evidence.webhooks]),
        placed_once=sum(live[row.id] == 1 for row in evidence.rows),
        resends=sum(max(0, row.attempt - 1) for row in evidence.rows),
        circuit_openings=openings,
        overall=Latency.of([placed - accepted for accepted, placed in took]),
        recovery=Latency.of(_disturbed(took, done)),
        recovery_limit=recovery_limit,
        slowest=sorted(moments, key=lambda order_id: moments[order_id][0] - moments[order_id][1])[:_SLOWEST],
        quiet=quiet,
        violations=violations,
    )


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items()))


def _by_kind(violations: Sequence[Violation]) -> dict[str, int]:
    found = Counter(violation.what for violation in violations)
    return {what: found[what] for what in KINDS}


def _placements(evidence: Evidence) -> dict[str, tuple[float, float]]:
    """When each accepted order that was placed was answered and placed, by its id."""
    moments = {}
    for told in evidence.told:
        if told.accepted_at is None:
            continue
        for order_id in told.order_ids:
            placed = [step.at for step in evidence.histories.get(order_id, ()) if step.to_status in AT_VENUE]
            if placed:
                moments[order_id] = (min(told.accepted_at, placed[0]), placed[0])
    return moments


def _disturbed(took: Sequence[tuple[float, float]], done: Sequence[Done]) -> list[float]:
    """The seconds from answer to placement of the orders that were in flight during a fault."""
    faults = sorted(windows(done))
    begins = [began for began, _ in faults]
    latest_end, ends = 0.0, []
    for _, ended in faults:
        latest_end = max(latest_end, ended)
        ends.append(latest_end)
    disturbed = []
    for accepted, placed in took:
        index = bisect.bisect_right(begins, placed)
        if index and ends[index - 1] >= accepted:
            disturbed.append(placed - accepted)
    return disturbed


def print_report(report: Report, evidence: Evidence, console: Console) -> None:
    console.print(_faults(report))
    console.print(_figures(report))
    if report.violations:
        console.print(_offenders(report.violations, evidence), markup=False, highlight=False)
    if report.overall.longest > report.recovery_limit:
        console.print("\nThe orders that took longest:", *_slowest(report, evidence), sep="\n", markup=False)


def _faults(report: Report) -> Table:
    table = Table(
        "Fault",
        "Carried out",
        title=f"{sum(report.faults.values())} of {report.planned} planned faults, seed {report.seed}",
    )
    for kind, count in report.faults.items():
        table.add_row(kind, str(count))
    for kind, count in report.missed.items():
        table.add_row(f"[dim]not carried out: {kind}[/dim]", f"[dim]{count}[/dim]")
    return table


def _figures(report: Report) -> Table:
    table = Table("Figure", "Value", title=f"{report.seconds:.0f} s, {report.sent} orders sent")
    table.add_row("accepted (201)", f"{report.accepted}, {report.accepted / report.seconds:.1f} a second")
    table.add_row("placed once", str(report.placed_once))
    for what, count in _by_kind(report.violations).items():
        colour = "red" if count else "green"
        table.add_row(f"{what} ({KINDS[what]})", f"[{colour}]{count}[/{colour}]")
    colour = "red" if report.own_faults else "green"
    table.add_row("answered 500, a fault of ours", f"[{colour}]{report.own_faults}[/{colour}]")
    for status, count in report.statuses.items():
        table.add_row(f"  {status}", str(count))
    table.add_row("  with an operator", str(report.parked))
    for outcome, count in report.requests.items():
        table.add_row(f"  {outcome}", str(count))
    table.add_row("executions, busts and corrections", str(report.executions))
    table.add_row("reports of the exchange", f"{report.reports}, of which {report.unmatched} kept for operators")
    table.add_row("events told to clients", str(report.told))
    table.add_row("re-sends under the same id", str(report.resends))
    table.add_row("circuit openings", str(report.circuit_openings))
    table.add_row("201 to placed, all", str(report.overall))
    table.add_row("201 to placed, during faults", str(report.recovery))
    table.add_row("  its p99 should be below", f"{report.recovery_limit:g} s")
    table.add_row("never answered", str(report.unanswered))
    for answer, count in report.refused_by_the_api.items():
        table.add_row(f"refused by the API: {answer}", str(count))
    for kind, count in report.answers.items():
        table.add_row(f"client saw {kind}", str(count))
    if not report.quiet:
        table.add_row("[red]the system did not come to rest[/red]", "[red]1[/red]")
    return table


def _offenders(violations: Sequence[Violation], evidence: Evidence) -> str:
    rows = {row.id: row for row in evidence.rows}
    lines = []
    by_key = {row.client_order_id: row.id for row in evidence.rows}
    for violation in violations[:_HISTORIES]:
        lines += ["", f"{violation.invariant} {violation.what}: {violation.order_id}: {violation.note}"]
        order_id = by_key.get(violation.order_id, violation.order_id)
        lines += _history(order_id, rows.get(order_id), evidence)
    if len(violations) > _HISTORIES:
        lines += ["", f"and {len(violations) - _HISTORIES} more; --json FILE has them all"]
    return "\n".join(lines)


def _slowest(report: Report, evidence: Evidence) -> list[str]:
    rows = {row.id: row for row in evidence.rows}
    return [line for order_id in report.slowest for line in [order_id, *_history(order_id, rows[order_id], evidence)]]


def _history(order_id: str, row: Row | None, evidence: Evidence) -> list[str]:
    lines = []
    if row is not None:
        lines.append(f"  {row.client_order_id} of {row.owner}: {row.status}, {' '.join(map(str, row.content))}")
    for step in evidence.histories.get(order_id, ()):
        moved = f"{step.from_status or '-'} -> {step.to_status}"
        lines.append(f"  {_clock(step.at)} #{step.sequence} {step.event} {moved} attempt {step.attempt} {step.reason}")
    for entry in evidence.ledger:
        if entry.client_order_id == order_id:
            lines.append(f"  {entry.received_at[11:26]} the exchange has {entry.venue_order_id} {entry.status}")
    for report in evidence.reports:
        if report.client_order_id == order_id:
            lines.append(f"  report {report.sequence} {_said(report)}")
    for request in evidence.requests:
        if request.order_id == order_id:
            lines.append(f"  {request.kind} {request.id} {request.status}")
    for told in evidence.told:
        if order_id in told.order_ids or told.client_order_id == order_id:
            accepted = _clock(told.accepted_at) if told.accepted_at else "never"
            lines.append(f"  {_clock(told.first_sent_at)} first sent by {told.owner}; accepted {accepted}")
    return lines


def _said(report: VenueReport) -> str:
    what = f"{report.execution.execution_id} {report.execution.refers_to}" if report.execution else report.request_id
    return f"{report.kind} {what} -> {report.status} {report.filled} of {report.terms.quantity}, {report.leaves} left"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S.%f")
