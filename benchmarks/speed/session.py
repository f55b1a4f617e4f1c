"""One run: what the scenarios share."""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.speed.client import Job
from benchmarks.speed.load import Answers, run_load
from benchmarks.speed.measures import Cost, Measure
from benchmarks.speed.pgbench import Stored
from benchmarks.speed.stage import Server, Stage

T = TypeVar("T")
SINGLE = "/api/v1/orders"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    seconds: float
    """The length of each measurement under load."""
    repeats: int
    quick: bool
    rows: int
    """The number of orders in the big table."""
    moving_rows: int
    """The number of orders in the table from which orders are moved."""
    json: Path
    svg: Path


@dataclass
class Session:
    stage: Stage
    options: Options
    console: Console
    measures: list[Measure] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What else a reader of the figures must know."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """Every single measurement, for the JSON file."""

    def __post_init__(self) -> None:
        self._prefixes = 0
        self._scenario = ""
        self._progress: Progress | None = None
        self._bar: Any = None

    # ---- Measuring ----

    def load(self, server: Server, path: str = "", **job: Any) -> Answers:
        """Send requests to a server; see `client.Job`. `allowed` has the statuses that its answers may have."""
        allowed = job.pop("allowed", (200, 201))
        job.setdefault("seconds", self.options.seconds)
        job.setdefault("prefix", self.prefix())
        cpu_of = {"server": server.pid, "postgres": self.stage.postgres_pid}
        return run_load(
            self.stage.references, Job(port=server.port, path=path, **job), cpu_of, allowed=tuple(allowed)
        )  # fmt: skip

    def prefix(self) -> str:
        """A prefix of `client_order_id`s that nobody has used yet."""
        self._prefixes += 1
        return f"bench-{self._prefixes}"

    def interleave(
        self,
        contestants: Mapping[str, Callable[[float], T]],
        *,
        seconds: float | None = None,
        repeats: int | None = None,
        warm_up: bool = True,
    ) -> dict[str, list[T]]:
        """Measure in turns, A B A B, after a short warm-up of each, so that a drift affects all of them.

        A contestant is called with the seconds that it must take.
        """
        seconds, repeats = seconds or self.options.seconds, repeats or self.options.repeats
        samples: dict[str, list[T]] = {name: [] for name in contestants}
        if warm_up:
            for name, measure in contestants.items():
                self.say(f"{name}: warming up")
                measure(min(2.0, seconds))
        for turn in range(repeats):
            for name, measure in contestants.items():
                self.say(f"{name}: {turn + 1} of {repeats}")
                self.stage.settle()
                sample = measure(seconds)
                samples[name].append(sample)
                self.samples.append({"scenario": self._scenario, "contestant": name, "sample": _plain(sample)})
        return samples

    def statements(self, make_requests: Callable[[], Answers]) -> float:
        """How many statements are sent to PostgreSQL for each request."""
        found: Counter[str] = Counter()
        with self.stage.statements(found):
            answers = make_requests()
        self.samples.append({"scenario": self._scenario, "statements": dict(found), "requests": answers.good})
        return round(found.total() / max(1, answers.good), 2)

    # ---- Results ----

    def measure(self, name: str, unit: str, ours: list[float], **more: Any) -> None:
        self.measures.append(Measure(scenario=self._scenario, name=name, unit=unit, ours=ours, **more))

    def cost(self, contestant: str, answers: list[Answers] | list[Stored], **more: Any) -> None:
        """The median of a contestant's repeats, as a line of the second table."""
        cpu = {name: median(answer.cpu[name] for answer in answers) for name in answers[0].cpu}
        latencies = [answer.latency for answer in answers if isinstance(answer, Answers) and answer.latency]
        p50, p99 = (median(each[name] for each in latencies) if latencies else None for name in ("p50", "p99"))
        rate = median(answer.rate for answer in answers)
        self.costs.append(Cost(self._scenario, contestant, rate, p50, p99, cpu, **more))

    def note(self, text: str) -> None:
        self.notes.append(f"{self._scenario}: {text}")

    # ---- Progress ----

    def scenarios(self, names: list[str]) -> AbstractContextManager[Progress]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[doing]}"),
        )
        self._progress = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self._bar = self._progress.add_task("scenarios", total=len(names), doing="")
        return self._progress

    def begin(self, scenario: str) -> None:
        self._scenario = scenario
        self.say("starting")

    def done(self) -> None:
        if self._progress is not None:
            self._progress.advance(self._bar)

    def say(self, doing: str) -> None:
        """Show what is being done: beside the bar on a terminal, otherwise as a line."""
        if self.console.is_terminal and self._progress is not None:
            self._progress.update(self._bar, description=self._scenario, doing=doing)
        else:
            self.console.print(f"{time.strftime('%H:%M:%S')}  {self._scenario}: {doing}", highlight=False)


def _plain(sample: Any) -> Any:
    """The sample as JSON can hold it."""
    return dataclasses.asdict(sample) if dataclasses.is_dataclass(sample) and not isinstance(sample, type) else sample
