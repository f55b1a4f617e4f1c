"""What a scenario returns: a figure of QuikTrade, that of a reference, and the target."""

from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One line of the table. `ours` and `reference` hold one figure for each repeat, taken in turns.

    The ratio of the two is judged, repeat by repeat; without a reference, the figure itself.
    """

    scenario: str
    name: str
    unit: str
    ours: list[float]
    against: str = ""
    reference: list[float] = field(default_factory=list)
    target: float | None = None
    at_most: bool = False
    """The target is an upper limit: less is better."""

    @property
    def ratios(self) -> list[float]:
        return [ours / other for ours, other in zip(self.ours, self.reference, strict=False) if other]

    @property
    def judged(self) -> float | None:
        """The median ratio or figure; None if nothing was measured."""
        values = self.ratios if self.reference else self.ours
        return median(values) if values else None

    @property
    def met(self) -> bool | None:
        if self.target is None or self.judged is None:
            return None
        return self.judged <= self.target if self.at_most else self.judged >= self.target

    def as_json(self) -> dict[str, object]:
        return {
            "scenario": self.scenario,
            "name": self.name,
            "unit": self.unit,
            "ours": self.ours,
            "against": self.against,
            "reference": self.reference,
            "ratio": self.judged if self.reference else None,
            "target": self.target,
            "at_most": self.at_most,
            "met": self.met,
        }


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one contestant's requests in milliseconds: a line of the second table."""

    scenario: str
    contestant: str
    rate: float
    p50: float | None
    p99: float | None
    cpu: dict[str, float]
    """Processor time per request (per order in a batch), by process family."""
    statements: float | None = None
    """Statements sent to PostgreSQL, per order."""

    def as_json(self) -> dict[str, object]:
        return {
            "scenario": self.scenario,
            "contestant": self.contestant,
            "rate": self.rate,
            "p50_ms": self.p50,
            "p99_ms": self.p99,
            "cpu_ms": self.cpu,
            "statements": self.statements,
        }


def figure(value: float) -> str:
    """Three significant digits, and a comma for thousands."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def target(measure: Measure) -> str:
    if measure.target is None:
        return ""
    sign, unit = ("≤" if measure.at_most else "≥"), (" ×" if measure.reference else "")
    return f"{sign} {figure(measure.target)}{unit}"
