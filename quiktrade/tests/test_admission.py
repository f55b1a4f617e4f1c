"""Whom a web process takes on, with a clock of our own."""

import heapq
import random

from quiktrade.admission import FEW, PERIOD_SECONDS, Admission

MOST = 32
TICK_SECONDS = 0.000_1


class Load:
    """Requests at an even pace. Each takes 1 ms of the one processor, when those before it have, and then waits for
    the database, for half as long as `database_seconds` up to half as long again."""

    def __init__(self, database_seconds: float) -> None:
        self._database_seconds = database_seconds
        self._dice = random.Random(1)
        self._now = self._processor_free_at = self._due = 0.0
        self._under_way: list[tuple[float, float]] = []  # when it ends, when it was taken on
        self.admission = Admission(MOST, clock=lambda: self._now)
        self.refused = 0

    def come(self, per_second: float, *, seconds: float) -> None:
        self.refused = 0
        end = self._now + seconds
        while self._now < end:
            self._now += TICK_SECONDS
            while self._under_way and self._under_way[0][0] <= self._now:
                _, taken_at = heapq.heappop(self._under_way)
                self.admission.done(self._now - taken_at)
            self._due += per_second * TICK_SECONDS
            while self._due >= 1:
                self._due -= 1
                if self.admission.take():
                    self._processor_free_at = max(self._processor_free_at, self._now) + 0.001
                    ends_at = self._processor_free_at + self._database_seconds * self._dice.uniform(0.5, 1.5)
                    heapq.heappush(self._under_way, (ends_at, self._now))
                else:
                    self.refused += 1


def test_a_burst_waits_and_what_is_too_much_is_refused() -> None:
    admission = Admission(MOST, clock=lambda: 0.0)
    assert [admission.take() for _ in range(MOST + 1)] == [True] * MOST + [False]
    admission.done(0.01)
    assert admission.take()
    assert not admission.take()


def test_probes_are_taken_on_whatever_comes() -> None:
    admission = Admission(1, clock=lambda: 0.0)
    assert admission.take()
    assert not admission.take()
    assert admission.take(whatever=True)
    assert admission.in_hand == 2


def test_a_load_that_can_be_borne_is_borne() -> None:
    load = Load(database_seconds=0.002)
    load.come(900, seconds=2)
    assert load.refused == 0
    assert load.admission.room == MOST


def test_a_little_too_much_costs_only_what_is_too_much() -> None:
    load = Load(database_seconds=0.002)
    load.come(1_300, seconds=2)
    assert 0 < load.refused < 1_300
    assert load.admission.room == MOST


def test_when_most_are_refused_a_few_in_hand_have_to_do() -> None:
    load = Load(database_seconds=0.002)
    load.come(4_000, seconds=2)
    assert load.admission.room <= 2 * FEW
    assert load.refused > 4_000


def test_the_house_is_open_again_when_the_crowd_has_gone() -> None:
    load = Load(database_seconds=0.002)
    load.come(4_000, seconds=2)
    load.come(500, seconds=3 * PERIOD_SECONDS)
    load.come(500, seconds=1)
    assert load.admission.room == MOST
    assert load.refused == 0


def test_the_house_is_open_again_after_a_pause() -> None:
    load = Load(database_seconds=0.002)
    load.come(4_000, seconds=2)
    load.come(0, seconds=2 * PERIOD_SECONDS)
    load.come(900, seconds=0.02)
    assert load.admission.room == MOST


def test_those_who_wait_for_the_database_leave_the_processor_to_more() -> None:
    load = Load(database_seconds=0.05)
    load.come(4_000, seconds=2)
    assert load.admission.room == MOST


def test_nothing_is_learnt_from_what_was_not_answered_well() -> None:
    now = 0.0
    admission = Admission(MOST, clock=lambda: now)
    for _ in range(40):  # crowded periods, in which all that is answered is an error
        for _ in range(200):
            now += PERIOD_SECONDS / 100
            admission.take()
        while admission.in_hand:
            admission.done(None)
    assert admission.room == FEW
