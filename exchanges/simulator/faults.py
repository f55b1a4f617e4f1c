"""What can be made to go wrong at the simulated exchange, and when.

A fault strikes each request that it is aimed at with its probability, until its count is used up. Each fault has its
own random generator, made from the seed and its name when it is set: so the same requests meet the same faults,
whatever other faults are set.
"""

import random
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PLACE = "place"
FIND = "find"
CANCEL = "cancel"
REPLACE = "replace"
_BOTH = frozenset({PLACE, FIND})
_PLACE = frozenset({PLACE})
REPORT = "report"
FRAME = "frame"
EXECUTION = "execution"
END = "end"
_CANCEL = frozenset({CANCEL})
_REPORT = frozenset({REPORT})
_FRAME = frozenset({FRAME})
_EXECUTION = frozenset({EXECUTION})
_END = frozenset({END})
_COUNTS_AS = {CANCEL: PLACE, REPLACE: PLACE}
"""A fault of what is placed strikes a cancel and a replacement too: a member sends all three in one way."""

MAX_SECONDS = 3600.0


class FaultError(ValueError):
    """A fault that does not exist or cannot be set so; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Kind:
    help: str
    aims: frozenset[str]
    """The calls it can strike; by default it strikes those of `default_aims`."""
    default_aims: frozenset[str]
    parameters: tuple[str, ...] = ()


# fmt: off
KINDS: dict[str, Kind] = {
    # before the request is looked at
    "hold":       Kind("it waits this many seconds, then counts, come what may", _BOTH, _PLACE, ("seconds",)),
    "stall":      Kind("never answered; cut off after this many seconds (30)", _BOTH, _BOTH, ("seconds",)),
    "reset":      Kind("the connection is reset, the request not looked at", _BOTH, _BOTH),
    "rate_limit": Kind("429 with Retry-After, as a date with date=true; the request not looked at", _BOTH, _PLACE,
                       ("retry_after", "date")),
    "http_5xx":   Kind("a 5xx answer; recorded=true: but it counted; retry_after: with Retry-After", _BOTH, _BOTH,
                       ("status", "recorded", "retry_after")),
    "lock_out":   Kind("401, our credentials are refused; the request not looked at", _BOTH, _BOTH),
    # in dealing with an order
    "reject":              Kind("a definite refusal, trading_halted", _PLACE, _PLACE),
    "enforce_valid_until": Kind("an order after its valid_until is refused as stale, by a clock that is ahead by so "
                                "many seconds (0)", _PLACE, _PLACE, ("clock_ahead",)),
    "forget_duplicates":   Kind("a known client_order_id becomes a further live order", _PLACE, _PLACE),
    "duplicate_window":    Kind("likewise, once this many seconds have passed", _PLACE, _PLACE, ("seconds",)),
    "forget_rejections":   Kind("a refused client_order_id may be used again", _PLACE, _PLACE),
    "ignore_cancel":       Kind("a cancel is answered 202, and nothing comes of it", _CANCEL, _CANCEL),
    # when the order is on record
    "latency":          Kind("the reply takes this many seconds", _BOTH, _BOTH, ("seconds",)),
    "accept_then_drop": Kind("the connection is closed without a reply", _BOTH, _PLACE),
    "truncate":         Kind("the connection is closed in the middle of the reply", _BOTH, _PLACE),
    # of the stream of reports, heartbeats among its frames
    "drop_reports":    Kind("a report is not sent", _REPORT, _REPORT),
    "repeat_reports":  Kind("a report is sent twice", _REPORT, _REPORT),
    "shuffle_reports": Kind("the reports of a frame come in any order", _FRAME, _FRAME),
    "delay_reports":   Kind("a frame comes this many seconds later", _FRAME, _FRAME, ("seconds",)),
    "silent_stream":   Kind("it stays open and says nothing, for this many seconds (30)", _FRAME, _FRAME, ("seconds",)),
    "cut_stream":      Kind("its connection is reset instead of a frame", _FRAME, _FRAME),
    # of what happens to an order, this many seconds (0) after it did
    "late_fill":  Kind("an order that ended with something left is filled after all", _END, _END, ("seconds",)),
    "bust":       Kind("a fill is busted", _EXECUTION, _EXECUTION, ("seconds",)),
    "correction": Kind("a fill is corrected to another quantity", _EXECUTION, _EXECUTION, ("seconds",)),
    # of the listening socket: it strikes no requests, so it has no aim, probability or count
    "refuse":           Kind("connections are refused", frozenset(), frozenset()),
}
# fmt: on

_AT_ONCE_BY_DEFAULT = frozenset({"late_fill", "bust", "correction"})
_NEEDS_SECONDS = frozenset({"hold", "latency", "duplicate_window", "delay_reports"})


@dataclass(slots=True, kw_only=True)
class Fault:
    name: str
    aims: frozenset[str]
    dice: random.Random
    probability: float = 1.0
    count: int | None = None
    seconds: tuple[float, float] = (30.0, 30.0)
    status: int = 503
    recorded: bool = False
    retry_after: float | None = None
    date: bool = False
    clock_ahead: float = 0.0
    struck: int = 0

    def strikes(self) -> bool:
        """Decide by chance whether it strikes this request."""
        if self.count is not None and self.struck >= self.count:
            return False
        if self.probability < 1.0 and self.dice.random() >= self.probability:
            return False
        self.struck += 1
        return True

    def duration(self) -> float:
        shortest, longest = self.seconds
        return shortest if shortest == longest else self.dice.uniform(shortest, longest)

    def as_json(self) -> dict[str, Any]:
        view: dict[str, Any] = {}
        kind = KINDS[self.name]
        if kind.aims:
            view = {"on": sorted(self.aims), "probability": self.probability, "count": self.count}
            view["struck"] = self.struck
        given = {name: getattr(self, name) for name in kind.parameters}
        return view | {name: value for name, value in given.items() if value is not None}


@dataclass(slots=True)
class Faults:
    """The faults that are set now."""

    seed: int = field(default_factory=lambda: secrets.randbits(32))
    _set: dict[str, Fault] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._set)

    def __contains__(self, name: str) -> bool:
        return name in self._set

    def draw(self, call: str) -> Mapping[str, Fault]:
        """The faults that strike this request."""
        if not self._set:
            return {}
        calls = {call, _COUNTS_AS.get(call, call)}
        return {name: fault for name, fault in self._set.items() if calls & fault.aims and fault.strikes()}

    def replace(self, settings: Mapping[str, Any]) -> None:
        """Set exactly these, counters at zero. Raises: FaultError, and then nothing has changed."""
        self._set = {name: read_fault(name, value, self.seed) for name, value in settings.items()}

    def put(self, name: str, value: Any) -> None:
        """Set one, others as they were. Raises: FaultError."""
        self._set[name] = read_fault(name, value, self.seed)

    def remove(self, name: str) -> None:
        """Raises: FaultError if there is no such fault; one that is not set is no error."""
        kind_of(name)
        self._set.pop(name, None)

    def as_json(self) -> dict[str, Any]:
        return {"seed": self.seed, "faults": {name: fault.as_json() for name, fault in self._set.items()}}


def kind_of(name: str) -> Kind:
    try:
        return KINDS[name]
    except KeyError:
        raise FaultError(f"no fault {name!r}; there are: {', '.join(KINDS)}") from None


def read_fault(name: str, value: Any, seed: int) -> Fault:
    """Make a fault from JSON: true, or an object of its parameters. Raises: FaultError."""
    kind = kind_of(name)
    if value is True:
        value = {}
    if not isinstance(value, dict):
        raise FaultError(f"{name}: must be true or an object of parameters")
    general = ("on", "probability", "count") if kind.aims else ()
    for key in value:
        if key not in general and key not in kind.parameters:
            known = ", ".join((*kind.parameters, *general)) or "it has none"
            raise FaultError(f"{name}: no parameter {key!r}; known: {known}")
    if name in _NEEDS_SECONDS and "seconds" not in value:
        raise FaultError(f"{name}: seconds is required")
    read = {key: _READERS[key](f"{name}: {key}", content) for key, content in value.items() if key != "on"}
    if name == "rate_limit":
        read.setdefault("retry_after", 1.0)
    if name in _AT_ONCE_BY_DEFAULT:
        read.setdefault("seconds", (0.0, 0.0))
    aims = _aims(name, kind, value["on"]) if "on" in value else kind.default_aims
    dice = random.Random(f"{seed}/{name}")  # noqa: S311 - to be repeatable is the point
    return Fault(name=name, aims=aims, dice=dice, **read)


def _aims(name: str, kind: Kind, value: Any) -> frozenset[str]:
    calls = [value] if isinstance(value, str) else value
    if calls == ["both"]:
        calls = [PLACE, FIND]
    possible = " and ".join(sorted(kind.aims))
    if not isinstance(calls, list) or not calls or not all(isinstance(call, str) for call in calls):
        raise FaultError(f"{name}: on: must be {possible}")
    if not kind.aims.issuperset(calls):
        raise FaultError(f"{name}: on: can strike {possible} only")
    return frozenset(calls)


def _number(what: str, value: Any, lowest: float, highest: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
        raise FaultError(f"{what}: must be a number from {lowest:g} to {highest:g}")
    return float(value)


def _whole(what: str, value: Any, lowest: int, highest: int) -> int:
    if type(value) is not int or not lowest <= value <= highest:
        raise FaultError(f"{what}: must be a whole number from {lowest} to {highest}")
    return value


def _seconds(what: str, value: Any) -> tuple[float, float]:
    ends = value if isinstance(value, list) else [value, value]
    if len(ends) != 2:
        raise FaultError(f"{what}: must be a number or [min, max]")
    shortest, longest = (_number(what, end, 0, MAX_SECONDS) for end in ends)
    if shortest > longest:
        raise FaultError(f"{what}: {shortest:g} is above {longest:g}")
    return shortest, longest


def _flag(what: str, value: Any) -> bool:
    if type(value) is not bool:
        raise FaultError(f"{what}: must be true or false")
    return value


_READERS: dict[str, Any] = {
    "seconds": _seconds,
    "probability": lambda what, value: _number(what, value, 0, 1),
    "count": lambda what, value: _whole(what, value, 1, 10**9),
    "status": lambda what, value: _whole(what, value, 500, 599),
    "recorded": _flag,
    "retry_after": lambda what, value: _number(what, value, 0, MAX_SECONDS),
    "date": _flag,
    "clock_ahead": lambda what, value: _number(what, value, 0, MAX_SECONDS),
}
