"""11: requests to the simulated exchange's book, against Liquibook, which is C++, with the same requests."""

import json
import subprocess
from functools import partial

from benchmarks.speed.session import Session
from quiktrade.local.venv import ROOT


def measure(session: Session) -> None:
    found = session.interleave(
        {engine: partial(_run, session, engine) for engine in ("book", "liquibook")}, warm_up=False
    )
    rates = {engine: [float(run["rate"]) for run in runs] for engine, runs in found.items()}
    session.measure("book, limit orders and cancels", "requests/s", rates["book"], target=200_000.0)
    session.measure(
        "book, limit orders and cancels", "requests/s", rates["book"],
        against="Liquibook", reference=rates["liquibook"],
    )  # fmt: skip
    if len({run["trades"] for runs in found.values() for run in runs}) != 1:
        session.note("the two engines made different trades of the same requests")


def _run(session: Session, engine: str, seconds: float) -> dict[str, float]:
    command = [str(session.stage.references), "-m", "benchmarks.speed.matching", engine, str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    run: dict[str, float] = json.loads(done.stdout)
    return run
