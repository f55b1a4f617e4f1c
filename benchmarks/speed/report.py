"""The figures: two tables, and everything as JSON."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.speed.measures import Cost, Measure, figure, target
from benchmarks.speed.session import Session
from quiktrade.local.venv import ROOT


def with_spread(values: list[float]) -> str:
    """The median, and in brackets the least and the greatest."""
    if not values:
        return ""
    middle = figure(median(values))
    return middle if len(values) == 1 or min(values) == max(values) else (
        f"{middle} ({figure(min(values))}–{figure(max(values))})"
    )  # fmt: skip


def verdict(measure: Measure) -> str:
    return {True: "met", False: "missed", None: ""}[measure.met]


def print_report(session: Session, console: Console) -> None:
    table = Table(title="QuikTrade against its references: the median of all repeats (least–most)")
    for name in ("", "unit", "QuikTrade", "reference", "its figure", "ratio", "target", ""):
        right = name in ("QuikTrade", "its figure", "ratio", "target")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    before = None
    for measure in session.measures:
        if before not in (None, measure.scenario):
            table.add_section()
        before = measure.scenario
        ratio = f"{figure(measure.judged)} ×" if measure.reference and measure.judged is not None else ""
        colour = {True: "green", False: "red", None: ""}[measure.met]
        said = f"[{colour}]{verdict(measure)}[/{colour}]" if colour else ""
        table.add_row(
            measure.name, measure.unit, with_spread(measure.ours), measure.against, with_spread(measure.reference),
            ratio, target(measure), said,
        )  # fmt: skip
    console.print(table)
    if session.costs:
        console.print(_costs(session.costs))
    for note in session.notes:
        console.print(f"- {note}", highlight=False)


def _costs(costs: list[Cost]) -> Table:
    table = Table(title="What one request takes (in a batch: what one order takes)")
    families = ("server", "postgres", "client")
    for name in ("", "per second", "p50 ms", "p99 ms", *(f"{family} CPU ms" for family in families), "statements"):
        table.add_column(name, justify="right" if name else "left")
    for cost in costs:
        latency = ["" if value is None else figure(value) for value in (cost.p50, cost.p99)]
        cpu = [figure(cost.cpu[family]) if family in cost.cpu else "" for family in families]
        statements = "" if cost.statements is None else f"{cost.statements:g}"
        table.add_row(cost.contestant, figure(cost.rate), *latency, *cpu, statements)
    return table


def as_json(session: Session, *, seconds: float) -> dict[str, Any]:
    database = session.stage.database
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "took_seconds": round(seconds),
        "commit": _commit(),
        "options": {
            "seconds": session.options.seconds,
            "repeats": session.options.repeats,
            "quick": session.options.quick,
            "rows": session.options.rows,
        },
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
            "postgresql": database.binaries.version,
            "data_on": _file_system(database.server.data),
        },
        "measures": [measure.as_json() for measure in session.measures],
        "costs": [cost.as_json() for cost in session.costs],
        "notes": session.notes,
        "samples": session.samples,
    }


def write_json(content: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _commit() -> str | None:
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True
    )
    return asked.stdout.strip() or None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(path: Path) -> str:
    """The kind of file system of the database. In memory (tmpfs) no commit waits for a disk, so figures mean little."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, found, *_ = line.split()
        if Path(mount) in (path, *path.parents) and len(mount) > len(best):
            best, kind = mount, found
    return kind
