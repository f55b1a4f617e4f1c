"""The reports of the simulated exchange by their number: where in the journal each one is.

Eight bytes a report are kept in memory. A line of the journal holds all the reports that followed from one request.
"""

from array import array
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

Record = dict[str, Any]


class Place(NamedTuple):
    """Where in the journal a line is, in bytes."""

    start: int
    size: int


class ReportLog:
    def __init__(self, read: Callable[[Place], bytes]) -> None:
        self._read = read
        self._starts = array("Q")
        self._end = 0

    @property
    def last(self) -> int:
        """The number of the last report; 0 if there is none."""
        return len(self._starts)

    def add(self, reports: list[Record], place: Place) -> None:
        for report in reports:
            if report["sequence"] != self.last + 1:
                raise ValueError(f"report {report['sequence']} where {self.last + 1} is next")
            self._starts.append(place.start)
        self._end = place.start + place.size

    def page(self, *, after: int, limit: int) -> list[Record]:
        """Up to `limit` reports whose number is above `after`, in their order."""
        last = min(after + limit, self.last)
        if last <= after:
            return []
        start, next_line = self._starts[after], bisect_right(self._starts, self._starts[last - 1])
        end = self._starts[next_line] if next_line < self.last else self._end
        lines = self._read(Place(start, end - start)).splitlines()
        reports = [report for line in lines for report in orjson.loads(line).get("reports", ())]
        skipped = after + 1 - reports[0]["sequence"]
        return reports[skipped : skipped + last - after]

    def get(self, sequence: int) -> Record:
        return self.page(after=sequence - 1, limit=1)[0]
