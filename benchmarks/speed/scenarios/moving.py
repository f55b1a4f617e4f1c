"""8: the product's hot statements while orders are moved to the archive beside them, and while none are.

The two are measured in turns of a second on one table. The figure is the mean of a second, not its median: a batch is
moved in some twentieth of a second, and its effect must not fall among what the median leaves out.
"""

import subprocess
import sys
import time
from collections import defaultdict
from functools import partial
from statistics import mean

from benchmarks.speed.scenarios.big import RATIO_AT_MOST, environment, fill, rounds_of, statements
from benchmarks.speed.session import Session
from quiktrade.local.postgres.server import NAME
from quiktrade.local.venv import ROOT

DATABASE = "moving"
MOVING, STILL = "moving", "still"
SECONDS = 1.0
ROUNDS = 5


def measure(session: Session) -> None:
    stage, rows = session.stage, session.options.moving_rows
    with stage.connect(user="postgres", database="postgres") as connection:
        connection.execute(f"CREATE DATABASE {DATABASE} OWNER {NAME}")
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--verbosity", "0"],
        cwd=ROOT, env=environment(session, DATABASE), check=True,
    )  # fmt: skip
    fill(session, DATABASE, rows)
    turns = 3 if session.options.quick else 10
    trial = {"the same table": partial(_times, session, turns)}
    found = session.interleave(trial, warm_up=False)["the same table"]
    moved = [each[MOVING].pop("moved") for each in found]
    for statement in found[0][STILL]:
        session.measure(
            f"{statement}, orders moving", "ms", [times[MOVING][statement] for times in found],
            against="none moving", reference=[times[STILL][statement] for times in found],
            target=RATIO_AT_MOST, at_most=True,
        )  # fmt: skip
    session.note(f"{mean(moved) / turns / SECONDS:,.0f} orders/s were moved from a table of {rows:,}")
    with stage.connect(user="postgres", database="postgres") as connection:
        connection.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


def _times(session: Session, turns: int, seconds: float) -> dict[str, dict[str, float]]:
    """Mean milliseconds of each statement, with and without the mover. `seconds` does not limit it."""
    with statements(session, DATABASE, "newest") as asked, _mover(session) as mover:
        rounds_of(asked, 2 * ROUNDS)
        times: dict[str, dict[str, list[float]]] = {MOVING: defaultdict(list), STILL: defaultdict(list)}
        moved = 0
        for turn in range(2 * turns):
            beside = MOVING if turn % 2 else STILL
            if beside == MOVING:
                assert mover.stdin is not None
                mover.stdin.write(f"{SECONDS}\n")
                mover.stdin.flush()
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                for statement, taken in rounds_of(asked, ROUNDS).items():
                    times[beside][statement] += taken
            if beside == MOVING:
                assert mover.stdout is not None
                moved += int(mover.stdout.readline())
    means = {beside: {name: mean(each) for name, each in of.items()} for beside, of in times.items()}
    means[MOVING]["moved"] = float(moved)
    return means


def _mover(session: Session) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.speed.mover"],
        cwd=ROOT, env=environment(session, DATABASE), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
