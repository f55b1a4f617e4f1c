"""How the restore drill judges: what was told before the point must be there, and what the exchange has is listed."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults.records import Asked
from benchmarks.faults.restore import Account, Archived, judged
from benchmarks.tests.test_faults import CLEAN, HISTORY, LIVE, ROW, TOLD

POINT = datetime.fromtimestamp(5, UTC)
NOTHING: dict[str, Any] = {"rows": [], "histories": {}}
LATE = [replace(TOLD, accepted_at=6.0)]


@pytest.mark.parametrize(
    ("listed", "found", "wrong"),
    [
        ([], {}, []),
        ([], NOTHING, ["lost", "live without a row"]),
        (["o-1"], NOTHING, ["lost"]),  # it was accepted before the point
        (["o-1"], {**NOTHING, "told": LATE}, []),
        ([], {**NOTHING, "told": LATE}, ["live without a row"]),
        ([], {**NOTHING, "told": LATE, "ledger": []}, []),
        (["o-1"], {}, ["live without a row"]),  # and it has one
        ([], {"ledger": [LIVE, LIVE._replace(venue_order_id="S-2")]}, ["placed twice"]),
        ([], {"asked": [Asked("o-1", "cancel", 202, 4.0)]}, ["request lost"]),
        ([], {"asked": [Asked("o-1", "cancel", 202, 6.0)]}, []),
        (
            [],
            {"rows": [ROW._replace(status="unconfirmed")], "histories": {"o-1": HISTORY}},
            ["never finished", "audit gap"],
        ),
    ],
)
def test_only_what_came_after_the_point_may_be_lost(listed: list[str], found: Any, wrong: list[str]) -> None:
    account = Account(POINT, command={"orphans": [{"order_id": order_id} for order_id in listed]})
    assert [one.what for one in judged(replace(CLEAN, **found), account)] == wrong


def test_the_server_and_the_one_it_is_restored_to_archive_to_the_same_place(tmp_path: Path) -> None:
    servers = Archived(tmp_path)
    assert servers.primary.options == servers.standby.options
    assert f"archive_command=test ! -f {servers.archive}/%f" in " ".join(servers.primary.options)
    assert servers.archive not in (servers.primary.private.directory, *servers.primary.private.directory.parents)
