"""`manage.py drill failover` and `drill restore`: see `benchmarks/faults/failover.py` and `restore.py`."""

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from benchmarks.faults import failover, restore
from benchmarks.faults.run import Options
from benchmarks.management.commands import chaos

EPILOG = """\
failover: a primary and a synchronous standby. While orders come, the primary is killed, frozen, and stopped in order,
and the standby is killed; each time the other one takes over, and the lost one becomes its standby.

restore: one server, whose write-ahead log is archived. While orders come, a base backup is taken; later the server is
lost with its data, and restored from backup and archive to a time before that. With the workers off the orders are
reconciled with their venue, and those are listed that the venue has and the restored database does not.

Either runs its own system beside whatever else runs here. At the end the records of the clients, the database and the
exchange are compared, and it is told how long no order was accepted.

exit status: 0 all is well; 1 an order was lost, doubled or misreported, or the system did not come to rest;
2 wrong usage; 3 the run could not be made
"""
DRILLS = {
    "failover": (failover.Drill, failover.Pair, failover.SECONDS),
    "restore": (restore.RestoreDrill, restore.Archived, restore.LOST_AT),
}


class Command(chaos.Command):
    help = "Lose the database in every way that it should survive, and check that no order was lost or doubled."
    epilog = EPILOG

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("drill", choices=list(DRILLS), help="what is drilled")
        self.add_arguments_of_all(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        self.laboratory, self._servers, self._seconds = DRILLS[options["drill"]]
        super().handle(*args, **options)

    def environment(self, directory: Path) -> dict[str, str]:
        return {"DATABASE_URL": self._servers(directory).url()}

    def options(self, options: dict[str, Any], directory: Path) -> Options:
        return Options(
            seed=options["seed"],
            seconds=self._seconds,
            rate=options["rate"],
            clients=options["clients"],
            faults_per_minute=0.0,
            quick=False,
            directory=directory,
            json=options["json"],
            keep=options["keep"] is not None,
        )
