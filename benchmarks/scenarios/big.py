"""6: the product's hot statements with millions of orders in the table, and with a thousand.

The orders are loaded with one event each; 1 in 100 is open. In both tables there are a thousand orders of the
measured client alone, for its page and its look-ups to have something to find.
"""

import json
import os
import subprocess
import sys
from functools import partial

from benchmarks.session import Session
from quiktrade.private_server import NAME, ROOT

LARGE, EMPTY = "large", "empty"
MOST = 1.10


def measure(session: Session) -> None:
    stage, rows = session.stage, session.options.rows
    for database, count in ((EMPTY, 0), (LARGE, rows)):
        with stage.connect(user="postgres", database="postgres") as connection:
            connection.execute(f"CREATE DATABASE {database} OWNER {NAME}")
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "--verbosity", "0"],
            cwd=ROOT, env=_environment(session, database), check=True,
        )  # fmt: skip
        _fill(session, database, count)
    rounds = 50 if session.options.quick else 300

    found = session.interleave(
        {f"{database} table": partial(_times, session, database, rounds) for database in (EMPTY, LARGE)}
    )
    empty, large = found[f"{EMPTY} table"], found[f"{LARGE} table"]
    for statement in empty[0]:
        session.measure(
            f"{statement}, {rows:,} orders", "ms", [times[statement] for times in large],
            against="a thousand orders", reference=[times[statement] for times in empty], target=MOST, at_most=True,
        )  # fmt: skip
    (size,) = stage.ask("SELECT pg_size_pretty(pg_database_size(%s))", [LARGE])
    session.note(f"{rows:,} orders with an event each take {size}")
    with stage.connect(user="postgres", database="postgres") as connection:
        for database in (EMPTY, LARGE):
            connection.execute(f"DROP DATABASE {database} WITH (FORCE)")


def _fill(session: Session, database: str, rows: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.seed", str(rows)],
        cwd=ROOT, env=_environment(session, database), stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            session.say(f"{int(line):,} of {rows:,} orders loaded")
    if process.returncode:
        raise RuntimeError(f"loading {database} failed with exit status {process.returncode}")


def _times(session: Session, database: str, rounds: int, seconds: float) -> dict[str, float]:
    """Milliseconds by statement. It takes what it takes."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.statements", str(rounds)],
        cwd=ROOT, env=_environment(session, database), stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    times: dict[str, float] = json.loads(done.stdout)
    return times


def _environment(session: Session, database: str) -> dict[str, str]:
    return {**os.environ, "DATABASE_URL": session.stage.url(database)}
