"""The failover drill's own arithmetic, and the addresses that its processes get."""

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from benchmarks.faults.failover import Pair, outage


@pytest.mark.parametrize(
    ("began", "ended", "longest"),
    [
        (10.0, 20.0, 7.5),  # from 10.5 to 18
        (10.7, 20.0, 7.5),  # it had begun before
        (18.5, 20.0, 0.5),
        (30.0, 40.0, 0.0),
    ],
)
def test_an_outage_is_the_longest_time_between_two_accepted_orders(began: float, ended: float, longest: float) -> None:
    assert outage([1.0, 10.0, 10.5, 18.0, 18.5, 19.0], began, ended) == longest


def test_every_process_has_the_addresses_of_both_and_takes_the_one_that_can_be_written(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    given = conninfo_to_dict(pair.url())
    assert sorted(str(given["host"]).split(",")) == sorted([pair.primary.host, pair.standby.host])
    assert (given["port"], given["target_session_attrs"]) == ("5432,5432", "read-write")
    pair.primary, pair.standby = pair.standby, pair.primary
    assert conninfo_to_dict(pair.url()) == given
