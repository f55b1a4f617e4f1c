"""Reference: PostgreSQL storing one row per transaction, as fast as it can: the limit of durable accepts.

The row has the columns of an order and the two unique indexes that an idempotent accept cannot do without. No
event, no other index, no HTTP: nothing that stores an order durably can be faster.
"""

import re
import resource
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed.client import percentiles
from benchmarks.speed.processes import CpuMeter, milliseconds_each
from benchmarks.speed.stage import Stage
from quiktrade.local.postgres.server import NAME, PORT, SERVER_ENVIRONMENT

_COLUMNS = """
id uuid PRIMARY KEY, owner_id bigint NOT NULL, client_order_id varchar(64) NOT NULL, venue_id varchar(4) NOT NULL,
instrument varchar(12) NOT NULL, side varchar(4) NOT NULL, type varchar(10) NOT NULL, quantity bigint NOT NULL,
limit_price numeric(18, 8), stop_price numeric(18, 8), time_in_force varchar(3) NOT NULL, expires_at timestamptz,
place_by timestamptz, status varchar(16) NOT NULL, version int NOT NULL, attempt int NOT NULL, failures int NOT NULL,
next_attempt_at timestamptz, lease_expires_at timestamptz, in_doubt boolean NOT NULL, resend_before timestamptz,
venue_order_id varchar(64) NOT NULL, last_error varchar(500) NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
updated_at timestamptz NOT NULL DEFAULT now(), placed_at timestamptz, UNIQUE (owner_id, client_order_id)
"""
_INSERT = """
INSERT INTO accepted (id, owner_id, client_order_id, venue_id, instrument, side, type, quantity, limit_price,
time_in_force, status, version, attempt, failures, next_attempt_at, in_doubt, venue_order_id, last_error)
VALUES ({new_id}(), 1, {new_id}()::text, 'XSIM', 'US0378331005', 'buy', 'limit', 100, 187.5,
'day', 'pending', 1, 0, 0, statement_timestamp(), false, '', '');
"""
_FIRST_WITH_UUIDV7 = 18


class NotThere(Exception):
    """This PostgreSQL came without pgbench, or it failed; the text says why."""


@dataclass(frozen=True, slots=True)
class Stored:
    rate: float
    cpu: dict[str, float]


class Pgbench:
    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._program = stage.database.binaries.directory / "pgbench"
        self._script = stage.directory / "insert.sql"
        if not self._program.exists():
            raise NotThere(f"{self._program} is not there")
        ordered = int(stage.database.binaries.major) >= _FIRST_WITH_UUIDV7
        self._script.write_text(_INSERT.replace("\n", " ").format(new_id="uuidv7" if ordered else "gen_random_uuid"))
        with stage.connect(database="pgbench") as connection:
            connection.execute(f"CREATE TABLE IF NOT EXISTS accepted ({_COLUMNS})")

    def commits(self, seconds: float) -> dict[str, float]:
        """How long one client's transactions take, in milliseconds by percentile. Raises: NotThere."""
        log = self._stage.directory / "commits"
        for old in log.parent.glob(f"{log.name}.*"):
            old.unlink()
        self.run(seconds, clients=1, log=log)
        lines = [line for file in log.parent.glob(f"{log.name}.*") for line in file.read_text().splitlines()]
        return percentiles([int(line.split()[2]) / 1e6 for line in lines])

    def run(self, seconds: float, *, clients: int = 32, log: Path | None = None) -> Stored:
        """`log` begins the names of files with a line for each transaction. Raises: NotThere."""
        stage = self._stage
        meter = CpuMeter({"postgres": stage.postgres_pid})
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [
                *(self._program, "-h", stage.database.server.socket_directory, "-p", str(PORT), "-U", NAME),
                *("-n", "-M", "prepared", "-c", str(clients), "-j", "2", "-T", str(max(1, round(seconds)))),
                *(("-l", f"--log-prefix={log}") if log else ()),
                *("-f", self._script, "pgbench"),
            ],
            env=SERVER_ENVIRONMENT,
            capture_output=True,
            text=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        rate = re.search(r"^tps = ([0-9.]+)", done.stdout, re.MULTILINE)
        count = re.search(r"actually processed: ([0-9]+)", done.stdout)
        if done.returncode or rate is None or count is None:
            raise NotThere(f"pgbench failed: {done.stderr[-1000:]}")
        client = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Stored(float(rate[1]), milliseconds_each({**meter.read(), "client": client}, int(count[1])))
