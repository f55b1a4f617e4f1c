"""Decides which faults occur, and when: a pure function of the seed and the length of the run."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    what: str
    seconds: tuple[float, float] = (0.0, 0.0)
    """How long it lasts, at least and at most; zero if it is over at once."""


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    at: float
    """Seconds after the first order."""
    kind: str
    seconds: float
    choice: float
    """A number from 0 to 1 that chooses one of the processes that it could hit."""


_BRIEF, _OUTAGE, _SILENCE = (1.0, 3.0), (1.0, 4.0), (4.0, 8.0)

# fmt: off
KINDS: dict[str, Kind] = {
    "web_worker_kill":     Kind("SIGKILL to one of gunicorn's workers"),
    "web_worker_freeze":   Kind("SIGSTOP to one of gunicorn's workers", (2.0, 6.0)),
    "web_master_kill":     Kind("SIGKILL to gunicorn's master"),
    "web_master_stop":     Kind("SIGTERM to gunicorn's master: it finishes what it has"),
    "web_master_reload":   Kind("SIGHUP to gunicorn's master: new workers for old"),
    "watchdog_kill":       Kind("SIGKILL to the job cluster's watchdog"),
    "watchdog_freeze":     Kind("SIGSTOP to the job cluster's watchdog", (2.0, 16.0)),
    "watchdog_stop":       Kind("SIGTERM to the job cluster's watchdog: it finishes what it has"),
    "sentinel_kill":       Kind("SIGKILL to the job cluster's main process, its sentinel"),
    "sentinel_freeze":     Kind("SIGSTOP to the sentinel", (2.0, 16.0)),
    "sentinel_stop":       Kind("SIGTERM to the sentinel: it finishes what it has"),
    "pusher_kill":         Kind("SIGKILL to the pusher"),
    "pusher_freeze":       Kind("SIGSTOP to the pusher", (2.0, 16.0)),
    "monitor_kill":        Kind("SIGKILL to the monitor"),
    "monitor_freeze":      Kind("SIGSTOP to the monitor", (2.0, 16.0)),
    "worker_kill":         Kind("SIGKILL to a worker, the busy one by preference"),
    "worker_freeze":       Kind("SIGSTOP to a busy worker, past its lease", (9.0, 16.0)),
    "worker_stop":         Kind("SIGTERM to a worker"),
    "backend_terminate":   Kind("pg_terminate_backend for three connections"),
    "backend_kill":        Kind("SIGKILL to a connection's server process: crash recovery"),
    "postgres_restart":    Kind("immediate shutdown of PostgreSQL"),
    "postgres_kill":       Kind("SIGKILL to the postmaster"),
    "postgres_freeze":     Kind("SIGSTOP to PostgreSQL and its connections", _OUTAGE),
    "exchange_kill":       Kind("SIGKILL to the exchange, which starts again from its journal"),
    "exchange_stop":       Kind("SIGTERM to the exchange"),
    "exchange_rename":     Kind("SIGKILL to the exchange, which then has all its reports in a stream of another name"),
    "venue_latency":       Kind("the exchange takes up to 1.5 s", _BRIEF),
    "venue_5xx":           Kind("the exchange answers 503 and has not counted the order", _BRIEF),
    "venue_5xx_recorded":  Kind("the exchange answers 502 and has counted the order", _BRIEF),
    "venue_drop":          Kind("the exchange counts the order and drops the connection", _BRIEF),
    "venue_truncate":      Kind("the exchange's reply breaks off", _BRIEF),
    "venue_rate_limit":    Kind("the exchange answers 429", _BRIEF),
    "venue_refuse":        Kind("the exchange refuses connections", _OUTAGE),
    "venue_hold":          Kind("the exchange counts the order late, within the settle time", _BRIEF),
    "venue_stall":         Kind("the exchange never answers", _BRIEF),
    "venue_reset":         Kind("the exchange resets the connection unread", _BRIEF),
    "venue_ignore_cancel": Kind("the exchange answers a cancel with 202 and does nothing", _BRIEF),
    "venue_late_fill":     Kind("the exchange fills orders that it has canceled or expired", _BRIEF),
    "venue_bust":          Kind("the exchange takes fills back", _BRIEF),
    "venue_correction":    Kind("the exchange corrects fills to less", _BRIEF),
    "report_drop":         Kind("the exchange leaves reports out of its stream", _BRIEF),
    "report_repeat":       Kind("the exchange sends reports twice", _BRIEF),
    "report_shuffle":      Kind("the exchange sends the reports of a frame in any order", _BRIEF),
    "report_delay":        Kind("the exchange sends each frame up to 1 s late", _BRIEF),
    "report_cut":          Kind("the exchange resets the connection of its stream", _BRIEF),
    "report_silence":      Kind("the exchange's stream stays open and says nothing", _SILENCE),
    "session_kill":        Kind("SIGKILL to a session, the one that reads the stream by preference"),
    "session_freeze":      Kind("SIGSTOP to it, past its lease", (6.0, 10.0)),
    "session_stop":        Kind("SIGTERM to it"),
    "lease_theft":         Kind("another token in the row of the session's lease", (1.0, 4.0)),
    "proxy_refuse":        Kind("no connection to the exchange", _OUTAGE),
    "proxy_reset_before":  Kind("the connection is reset before the request is delivered", _BRIEF),
    "proxy_reset_after":   Kind("the connection is reset when the exchange replies", _BRIEF),
    "proxy_stall":         Kind("the request goes nowhere", _BRIEF),
    "proxy_trickle":       Kind("the reply comes byte by byte", _BRIEF),
    "proxy_drop_reply":    Kind("the request is delivered, the reply is not", _BRIEF),
    "proxy_hold":          Kind("the request is delivered late, within the settle time", _BRIEF),
    "proxy_hold_long":     Kind("the request is delivered long after the settle time", _BRIEF),
}
# fmt: on

QUICK = (
    *("worker_kill", "backend_kill", "venue_drop", "proxy_hold", "web_worker_kill", "proxy_hold_long"),
    *("session_kill", "report_drop", "venue_bust", "venue_ignore_cancel"),
)
"""One of each sort, for a run of half a minute."""

QUIET_END_SECONDS = 3.0
"""No fault starts while the last orders are sent: the system must recover without further faults."""


def make_plan(seed: int, *, seconds: float, per_minute: float, kinds: tuple[str, ...] = tuple(KINDS)) -> list[Fault]:
    """Faults in the order of their times, evenly spread with some chance. All kinds occur equally often, within one."""
    dice = random.Random(f"{seed}/plan")  # noqa: S311 - to be repeatable is the point
    room = seconds - QUIET_END_SECONDS
    count = max(0, int(room * per_minute / 60))
    bag: list[str] = []
    plan = []
    for number in range(count):
        if not bag:
            bag = sorted(kinds)
            dice.shuffle(bag)
        kind = bag.pop()
        shortest, longest = KINDS[kind].seconds
        at = (number + dice.random()) * room / count
        plan.append(Fault(round(at, 3), kind, round(dice.uniform(shortest, longest), 3), dice.random()))
    return sorted(plan)
