"""One leader and its followers: the next call serves those who wait, and nobody waits for ever."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from unittest.mock import patch

import pytest
from django.db import DataError, InterfaceError, OperationalError

from quiktrade.database import batching
from quiktrade.database.batching import Batcher
from quiktrade.tests.processes import wait_until


class Gone(OperationalError):
    """The connection is lost."""


@pytest.fixture(autouse=True)
def connections() -> "object":
    with patch.object(batching, "is_gone", lambda error: isinstance(error, Gone)):
        yield


class Work:
    """Does what it is given, one call at a time. The first call waits until it may continue."""

    def __init__(self, do: Callable[[Sequence[str]], None] = lambda items: None) -> None:
        self.calls: list[list[str]] = []
        self.go = threading.Event()
        self._do = do
        self.batcher = Batcher(self, most=3, size=len)

    def __call__(self, items: Sequence[str]) -> None:
        self.calls.append(list(items))
        if len(self.calls) == 1:
            self.go.wait(10)
        self._do(items)

    def submit(self, item: str) -> Future[None]:
        """Have it done by a thread that does not keep the test run from ending if it waits for ever."""
        call: Future[None] = Future()

        def run() -> None:
            try:
                self.batcher.do(item)
            except BaseException as error:
                call.set_exception(error)
            else:
                call.set_result(None)

        threading.Thread(target=run, daemon=True).start()
        return call

    def begin(self, *items: str) -> list[Future[None]]:
        """Have each of these done by its own thread, started one after the other; the first leads."""
        begun = []
        for number, item in enumerate(items):
            begun.append(self.submit(item))
            wait_until(lambda n=number: self.batcher.waiting == n and self.calls)  # type: ignore[misc]
        return begun

    def run(self, *items: str) -> list[BaseException | None]:
        begun = self.begin(*items)
        self.go.set()
        return [call.exception(10) for call in begun]


def fails_for(wrong: str, error: Exception) -> Callable[[Sequence[str]], None]:
    def do(items: Sequence[str]) -> None:
        if wrong in items:
            raise error

    return do


def test_those_who_come_during_a_call_are_done_by_the_next_in_their_order() -> None:
    work = Work()
    assert work.run("a", "b", "c", "d") == [None] * 4
    assert work.calls == [["a"], ["b", "c", "d"]]
    assert work.batcher.idle


def test_a_call_is_no_larger_than_it_may_be_unless_one_alone_is() -> None:
    work = Work()
    assert work.run("a", "bb", "c", "dddd", "e") == [None] * 5
    assert work.calls == [["a"], ["bb", "c"], ["dddd"], ["e"]]


def test_what_is_wrong_with_one_is_told_to_it_alone() -> None:
    work = Work(fails_for("c", DataError("out of range")))
    answers = work.run("a", "b", "c", "d")
    assert [type(each) for each in answers] == [type(None), type(None), DataError, type(None)]
    assert work.calls == [["a"], ["b", "c", "d"], ["b"], ["c"], ["d"]]


def test_an_error_that_is_not_one_item_s_is_everyone_s_and_the_next_call_is_made() -> None:
    work = Work(fails_for("c", RuntimeError("ours")))
    answers = work.run("a", "b", "c", "d", "e")
    assert [type(each) for each in answers[1:4]] == [RuntimeError] * 3
    assert answers[0] is answers[4] is None
    assert work.calls == [["a"], ["b", "c", "d"], ["e"]]


def test_when_the_connection_is_lost_everyone_who_waits_is_told_at_once() -> None:
    work = Work(fails_for("a", Gone("terminated")))
    answers = work.run("a", "b", "c", "d", "e")
    assert [type(each) for each in answers] == [Gone] * 5
    assert work.calls == [["a"]]
    assert work.run("f") == [None]


def test_after_two_that_were_held_up_by_locks_the_others_of_a_group_are_not_tried() -> None:
    locked = OperationalError("lock timeout")
    locked.__cause__ = type("LockNotAvailable", (Exception,), {"sqlstate": "55P03"})()

    def do(items: Sequence[str]) -> None:
        if items != ["a"]:
            raise locked

    work = Work(do)
    answers = work.run("a", "b", "c", "d")
    assert [str(each) for each in answers[1:]] == ["lock timeout", "lock timeout", "Other requests held it up."]
    assert work.calls == [["a"], ["b", "c", "d"], ["b"], ["c"]]


def test_who_follows_gives_its_connection_back_before_it_waits_and_who_leads_after_its_call() -> None:
    """There may be no more connections than followers: the next leader would get none."""
    work = Work()
    seen: list[str] = []
    wait = batching._Entry.wait

    def waits(entry: "batching._Entry[str]") -> None:
        seen.append("waits")
        wait(entry)

    with (
        patch.object(batching, "give_back", lambda: seen.append("gives back")),
        patch.object(batching._Entry, "wait", waits),
    ):
        assert work.run("a", "b") == [None] * 2
    assert seen == ["gives back", "waits", "gives back", "gives back"]


class Ended(BaseException):
    """This is how gevent ends a greenlet."""


def test_a_leader_that_is_ended_within_its_call_strands_no_follower() -> None:
    def do(items: Sequence[str]) -> None:
        if "b" in items:
            raise Ended

    work = Work(do)
    answers = work.run("a", "b", "c", "d", "e")
    assert answers[0] is answers[4] is None
    assert isinstance(answers[1], Ended)
    assert all(isinstance(each, InterfaceError) for each in answers[2:4])
    assert work.batcher.idle


def test_a_follower_that_is_ended_while_it_waits_is_left_out() -> None:
    work = Work()
    first = work.begin("a")
    with patch.object(batching._Entry, "wait", side_effect=Ended), pytest.raises(Ended):
        work.batcher.do("b")
    assert work.batcher.waiting == 0
    work.go.set()
    assert [call.exception(10) for call in first] == [None]
    assert work.run("c") == [None]


def test_one_that_is_ended_just_when_it_is_to_lead_has_the_next_one_lead() -> None:
    work = Work()
    (first,) = work.begin("a")
    led = threading.Event()

    def ended_when_it_leads(entry: "batching._Entry[str]") -> None:
        entry._asleep.acquire()
        if entry.item == "b":
            led.set()
            wait_until(lambda: work.batcher.waiting == 2)
            raise Ended

    with patch.object(batching._Entry, "wait", ended_when_it_leads):
        second = work.submit("b")
        wait_until(lambda: work.batcher.waiting == 1)
        work.go.set()
        assert led.wait(10)
        third = work.submit("c")
        assert isinstance(second.exception(10), Ended)
        assert third.exception(10) is first.exception(10) is None
    assert work.calls == [["a"], ["c"]]
    assert work.batcher.idle
