"""Whom a web process takes on, with a clock of our own."""

import heapq
import random

from quiktrade.web.admission import ANEW_SECONDS, FEW, PERIOD_SECONDS, STUCK_SECONDS, Admission

MOST = 32
TICK_SECONDS = 0.000_1


class Load:
    """Requests at an even pace. Each takes 1 ms of the one processor, when those before it have, and then waits for
    the database, for half as long as `database_seconds` up to half as long again."""

    def __init__(self, database_seconds: float) -> None:
        self.database_seconds = database_seconds
        self._dice = random.Random(1)
        self._now = self._processor_free_at = self._due = 0.0
        self._under_way: list[float] = []  # when each ends
        self.admission = Admission(MOST, clock=lambda: self._now)
        self.refused = self.answered = 0
        self.limits: list[int] = []
        """At every tick."""

    def come(self, per_second: float, *, seconds: float) -> None:
        self.refused = self.answered = 0
        self.limits = []
        end = self._now + seconds
        while self._now < end:
            self._now += TICK_SECONDS
            while self._under_way and self._under_way[0] <= self._now:
                heapq.heappop(self._under_way)
                self.admission.done()
                self.answered += 1
            self._due += per_second * TICK_SECONDS
            while self._due >= 1:
                self._due -= 1
                self._one()
            self.limits.append(self.admission.limit)

    @property
    def mean_limit(self) -> float:
        return sum(self.limits) / len(self.limits)

    def _one(self) -> None:
        if self.admission.take():
            self._processor_free_at = max(self._processor_free_at, self._now) + 0.001
            ends_at = self._processor_free_at + self.database_seconds * self._dice.uniform(0.5, 1.5)
            heapq.heappush(self._under_way, ends_at)
        else:
            self.refused += 1


def overload(database_seconds: float = 0.002) -> Load:
    """Four times what the processor can do, for long enough to settle."""
    load = Load(database_seconds)
    load.come(4_000, seconds=2)
    return load


def test_a_burst_waits_and_what_is_too_much_is_refused() -> None:
    admission = Admission(MOST, clock=lambda: 0.0)
    assert [admission.take() for _ in range(MOST + 1)] == [True] * MOST + [False]
    admission.done()
    assert admission.take()
    assert not admission.take()


def test_a_load_that_can_be_borne_is_borne() -> None:
    load = Load(database_seconds=0.002)
    load.come(900, seconds=5)
    assert load.refused == 0
    assert set(load.limits) == {MOST}


def test_a_little_too_much_costs_only_what_is_too_much() -> None:
    load = Load(database_seconds=0.002)
    load.come(1_300, seconds=5)
    assert 0 < load.refused < 1_300 * 5 - 0.95 * 1_000 * 5
    assert set(load.limits) == {MOST}


def test_when_most_are_refused_a_few_in_hand_have_to_do() -> None:
    load = overload()
    load.come(4_000, seconds=5)
    assert load.mean_limit < 1.5 * FEW
    assert load.answered > 0.8 * 1_000 * 5


def test_those_who_wait_for_the_database_leave_the_processor_to_more() -> None:
    load = overload(database_seconds=0.05)
    load.come(4_000, seconds=5)
    assert load.mean_limit > MOST / 2


def test_a_database_that_becomes_slow_under_overload_is_noticed() -> None:
    load = overload()
    load.database_seconds = 0.05
    load.come(4_000, seconds=ANEW_SECONDS + 2)
    load.come(4_000, seconds=2)
    assert load.mean_limit > MOST / 2


def test_the_limit_is_lifted_when_the_overload_is_over() -> None:
    load = overload()
    load.come(800, seconds=0.5)
    load.come(800, seconds=5)
    assert load.refused == 0
    assert set(load.limits) == {MOST}


def test_the_house_is_open_again_after_a_pause() -> None:
    load = overload()
    load.come(0, seconds=2 * PERIOD_SECONDS)
    load.come(900, seconds=0.02)
    assert load.refused == 0
    assert load.limits[-1] == MOST


def test_a_few_that_do_not_get_through_close_the_house_for_a_second_only() -> None:
    load = overload()
    load.database_seconds = 30.0
    load.come(4_000, seconds=STUCK_SECONDS + 0.5)
    assert load.limits[0] <= 3 * FEW
    assert load.limits[-1] == MOST
