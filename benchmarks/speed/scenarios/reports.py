"""12: the reports of a venue that one session writes on one core, against Django's models, a transaction for each."""

import json
import os
import subprocess
import sys
from functools import partial

from benchmarks.speed.session import Session
from quiktrade.local.postgres.server import NAME
from quiktrade.local.venv import ROOT

BATCH = 250


def measure(session: Session) -> None:
    contestants = {
        f"{BATCH} at a time": ("session", BATCH),
        "25 at a time": ("session", 25),
        "Django's ORM": ("orm", 1),
    }
    found = session.interleave(
        {name: partial(_run, session, *how) for name, how in contestants.items()}, warm_up=False
    )  # fmt: skip
    rates = {name: [float(run["rate"]) for run in runs] for name, runs in found.items()}
    ours, orm = rates[f"{BATCH} at a time"], rates["Django's ORM"]
    session.measure(f"reports, {BATCH} at a time", "reports/s", ours, target=5_000.0)
    session.measure(
        f"reports, {BATCH} at a time", "reports/s", ours, against="Django's ORM", reference=orm, target=10.0
    )  # fmt: skip
    session.measure("reports, 25 at a time", "reports/s", rates["25 at a time"], against="Django's ORM", reference=orm)
    for name, runs in found.items():
        cpu, backend = (sum(float(run[part]) for run in runs) / len(runs) for part in ("cpu_ms", "backend_ms"))
        session.note(f"{name}: one report takes {cpu:.3f} ms of Python and {backend:.3f} ms of PostgreSQL")


def _run(session: Session, writer: str, batch: int, seconds: float) -> dict[str, float]:
    session.stage.forget_orders()
    command = [sys.executable, "-m", "benchmarks.speed.ingest", writer, str(batch), str(seconds)]
    environment = {**os.environ, "DATABASE_URL": session.stage.url(NAME)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the reports were not written: {done.stderr.strip()[-500:]}")
    run: dict[str, float] = json.loads(done.stdout)
    return run
