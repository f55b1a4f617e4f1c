"""The interface between alerts and those who know what is wrong. A setting names the judges of orders and venues."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

from django.conf import settings
from django.utils.module_loading import import_string

from quiktrade.models import Incident

PAGE, TICKET = Incident.Severity.PAGE, Incident.Severity.TICKET


class Kind(NamedTuple):
    """A kind of trouble.

    `at_once`: one look is enough, because it happened and does not come and go. `lasting_seconds`: people are told when
    every look has seen it for so long.
    """

    name: str
    title: str
    severity: Incident.Severity
    at_once: bool = False
    lasting_seconds: float = 0.0


class Finding(NamedTuple):
    """Trouble that is there now. `subject` says with what, where there may be more than one."""

    kind: Kind
    subject: str
    sentence: str
    advice: str
    value: float = 1.0


class Judge(NamedTuple):
    """`look` finds all that is wrong of these kinds: what it does not find is good.

    It only reads, by statements that take milliseconds. Raises: django.db.Error, and then nothing is known.
    """

    kinds: Sequence[Kind]
    look: Callable[[], Sequence[Finding]]


@cache
def judges() -> list[Judge]:
    return [judge for name in settings.ALERT_JUDGES for judge in import_string(name)]


@cache
def kinds() -> dict[str, Kind]:
    """All kinds of which there can be incidents, by their names."""
    return {kind.name: kind for kind in (*(kind for judge in judges() for kind in judge.kinds), NOT_JUDGED, *UNJUDGED)}


NOT_JUDGED = Kind("not_judged", "Looks for trouble fail", PAGE)
"""What `incidents.look` itself finds: a judge that fails."""
DATABASE_AWAY = Kind("database_away", "Database away", PAGE)
TEST = Kind("test", "Test", TICKET)
UNJUDGED = (DATABASE_AWAY, TEST)
"""No look finds these. The web processes tell of the first by themselves, and a person makes the second."""
