"""Runs a job of the load generator, and measures the processor time of each process family."""

import dataclasses
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.speed.client import Job
from benchmarks.speed.processes import CpuMeter, milliseconds_each
from quiktrade.local.venv import ROOT


class LoadFailed(Exception):
    """The answers were not those that should be measured. The text says what came instead."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The result of a job. Latencies in milliseconds, by percentile; processor time in milliseconds per request."""

    rate: float
    good_rate: float
    statuses: dict[int, int]
    latency: dict[str, float]
    cpu: dict[str, float]
    raw: dict[str, Any]

    @property
    def good(self) -> int:
        return sum(count for status, count in self.statuses.items() if 200 <= status < 300)


def run_load(python: Path, job: Job, cpu_of: dict[str, int], *, allowed: tuple[int, ...] = (200, 201)) -> Answers:
    """Raises: LoadFailed, for an answer with a status not in `allowed`, for no answer, and for unanswered requests."""
    meter = CpuMeter(cpu_of)
    done = subprocess.run(
        [python, "-m", "benchmarks.speed.client"],
        input=json.dumps(dataclasses.asdict(job)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=job.warm_up + job.seconds + job.patience + 60,
    )
    if done.returncode:
        raise LoadFailed(f"the load generator failed: {done.stderr.strip().splitlines()[-1]}")
    raw = json.loads(done.stdout)
    statuses = {int(status): count for status, count in raw["statuses"].items()}
    if not statuses or set(statuses) - set(allowed) or (raw["unanswered"] and not {503} & set(allowed)):
        raise LoadFailed(f"{job.path or job.paths[:1]}: answers by status {statuses}, {raw['unanswered']} without one")
    cpu = milliseconds_each({**meter.read(), "client": raw["cpu_seconds"]}, raw["answered"])
    return Answers(raw["rate"], raw["good_rate"], statuses, raw["latency"], cpu, raw)
