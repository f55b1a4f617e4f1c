"""6: the product's hot statements with millions of orders in the table, and with a thousand.

The orders are loaded with their events, executions and positions (see seed.py). In both tables there are a thousand
orders of the measured client alone, so that its pages and its look-ups find something. The two are measured in turns
of a tenth of a second: the speed of a machine varies by up to a quarter, which is more than the difference that is
looked for.
"""

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from functools import partial
from statistics import median

from benchmarks.speed.session import Session
from quiktrade.local.postgres.server import NAME
from quiktrade.local.venv import ROOT

LARGE, EMPTY = "large", "empty"
RATIO_AT_MOST = 1.10
_ROUNDS = 10
_COUNTS = """
SELECT (SELECT count(*) FROM orders_orderevent), (SELECT count(*) FROM orders_execution),
    (SELECT count(*) FROM orders_position)
"""


def measure(session: Session) -> None:
    stage, rows = session.stage, session.options.rows
    for database, count in ((EMPTY, 0), (LARGE, rows)):
        with stage.connect(user="postgres", database="postgres") as connection:
            connection.execute(f"CREATE DATABASE {database} OWNER {NAME}")
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "--verbosity", "0"],
            cwd=ROOT, env=environment(session, database), check=True,
        )  # fmt: skip
        begun = time.monotonic()
        fill(session, database, count)
        stored = time.monotonic() - begun
    turns = 5 if session.options.quick else 30

    trial = {"both tables": partial(_times, session, turns)}
    found = session.interleave(trial, warm_up=False)["both tables"]
    for statement in found[0][EMPTY]:
        session.measure(
            f"{statement}, {rows:,} orders", "ms", [times[LARGE][statement] for times in found],
            against="a thousand orders", reference=[times[EMPTY][statement] for times in found],
            target=RATIO_AT_MOST, at_most=True,
        )  # fmt: skip
    (size,) = stage.ask("SELECT pg_size_pretty(pg_database_size(%s))", [LARGE])
    events, executions, positions = stage.ask(_COUNTS, database=LARGE)
    session.note(
        f"{events:,} events, {executions:,} executions and {positions:,} positions; {size}, stored in {stored:.0f} s"
    )
    with stage.connect(user="postgres", database="postgres") as connection:
        for database in (EMPTY, LARGE):
            connection.execute(f"DROP DATABASE {database} WITH (FORCE)")


def fill(session: Session, database: str, rows: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.speed.seed", str(rows)],
        cwd=ROOT, env=environment(session, database, user="postgres"), stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            session.say(f"{int(line):,} of {rows:,} orders loaded")
    if process.returncode:
        raise RuntimeError(f"loading {database} failed with exit status {process.returncode}")


def _times(session: Session, turns: int, seconds: float) -> dict[str, dict[str, float]]:
    """Milliseconds by database and statement, the median of all rounds. `seconds` does not limit it."""
    with ExitStack() as stack:
        asked = {database: stack.enter_context(statements(session, database)) for database in (EMPTY, LARGE)}
        for process in asked.values():  # the first few prepare the statements and fill caches
            rounds_of(process, 2 * _ROUNDS)
        times: dict[str, dict[str, list[float]]] = {database: defaultdict(list) for database in asked}
        for turn in range(turns):
            for database in (EMPTY, LARGE) if turn % 2 else (LARGE, EMPTY):
                for statement, taken in rounds_of(asked[database], _ROUNDS).items():
                    times[database][statement] += taken
    return {database: {name: median(each) for name, each in of.items()} for database, of in times.items()}


def statements(session: Session, database: str, *arguments: str) -> subprocess.Popen[str]:
    """The program that times the statements. It ends when its input ends."""
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.speed.statements", *arguments],
        cwd=ROOT, env=environment(session, database), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def rounds_of(process: subprocess.Popen[str], count: int) -> dict[str, list[float]]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{count}\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("the statements ended before they were measured; the error is above")
    times: dict[str, list[float]] = json.loads(line)
    return times


def environment(session: Session, database: str, user: str = NAME) -> dict[str, str]:
    return {**os.environ, "DATABASE_URL": session.stage.url(database).replace(f"//{NAME}@", f"//{user}@")}
