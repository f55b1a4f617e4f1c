"""The lease of a venue's reports: one session has it, whatever becomes of the others."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from exchanges.leases import Lease, LeaseLost
from exchanges.models import ReportSession, Venue
from quiktrade.processes import wait_for

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def venue() -> Venue:
    return Venue.objects.create(code="XSIM", name="Exchange", adapter="simulator")


def lease(holder: str = "node-1", *, alone: bool = False) -> Lease:
    return Lease("XSIM", holder, 5.0, predecessor_is_dead=alone)


def pass_seconds(seconds: float) -> None:
    ReportSession.objects.update(lease_expires_at=F("lease_expires_at") - timedelta(seconds=seconds))


def test_the_first_takes_it_and_the_second_waits() -> None:
    first, second = lease(), lease("node-2")
    at, new = first.take("journal-1") or pytest.fail("it was free")
    assert (at.next_sequence, new) == (1, True)
    assert not second.is_free()
    assert second.take("journal-1") is None
    assert second.take("journal-2") is None
    assert ReportSession.objects.get().token == at.token


def test_a_lease_that_has_ended_is_taken_with_its_checkpoint_and_a_new_token() -> None:
    first, second = lease(), lease("node-2")
    before, _ = first.take("journal-1") or pytest.fail("it was free")
    ReportSession.objects.update(next_sequence=8)
    pass_seconds(5.1)
    assert second.is_free()
    after, new = second.take("journal-1") or pytest.fail("it has ended")
    assert (after.next_sequence, new) == (8, False)
    assert after.token != before.token
    with pytest.raises(LeaseLost):
        first.renew(replace(before, next_sequence=8))


def test_a_lease_is_renewed_while_nobody_has_taken_it() -> None:
    first = lease()
    at, _ = first.take("journal-1") or pytest.fail("it was free")
    pass_seconds(5.1)
    first.renew(at)
    assert not lease("node-2").is_free()
    with pytest.raises(LeaseLost):
        first.renew(replace(at, next_sequence=2))


def test_a_lease_that_was_given_back_is_free_at_once() -> None:
    first, second = lease(), lease("node-2")
    first.take("journal-1")
    second.give_back()
    assert not second.is_free()
    first.give_back()
    assert second.take("journal-1")


def test_a_restart_on_the_node_of_a_dead_session_takes_it_at_once_and_only_once() -> None:
    lease().take("journal-1")
    assert lease("node-2", alone=True).take("journal-1") is None
    assert lease().take("journal-1") is None
    namesake = lease(alone=True)
    assert namesake.take("journal-1")
    other = lease(alone=True)
    other.take("journal-1")
    assert namesake.take("journal-1") is None


def test_a_session_keeps_its_lease_when_it_begins_again() -> None:
    first = lease()
    before, _ = first.take("journal-1") or pytest.fail("it was free")
    after, new = first.take("journal-1") or pytest.fail("it is its own")
    assert (new, after.token != before.token) == (False, True)


def test_a_lease_of_before_the_clock_was_set_back_holds_nobody_up() -> None:
    lease().take("journal-1")
    ReportSession.objects.update(lease_expires_at=timezone.now() + timedelta(hours=1))
    assert lease("node-2").take("journal-1")


def test_a_checkpoint_is_set_back_by_its_holder_alone() -> None:
    first = lease()
    at, _ = first.take("journal-1") or pytest.fail("it was free")
    ReportSession.objects.update(next_sequence=9)
    at = replace(at, next_sequence=9)
    assert first.set_back(at, 4).next_sequence == 4
    with pytest.raises(LeaseLost):
        first.set_back(replace(at, next_sequence=4, token=uuid4()), 2)
    assert ReportSession.objects.get().next_sequence == 4


@pytest.mark.django_db(transaction=True)
def test_of_two_that_take_an_ended_lease_at_once_one_gets_it() -> None:
    lease("node-0").take("journal-1")
    pass_seconds(5.1)
    second = lease("node-2")

    def take() -> object:
        try:
            return second.take("journal-1")
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as thread:
        with transaction.atomic():
            assert lease().take("journal-1")
            waiting = thread.submit(take)
            assert wait_for(lambda: blocked() == 1, 30)
        assert waiting.result() is None


def blocked() -> int:
    """How many statements wait for a lock. Unlike the activity, this is not remembered within a transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'")
        return int(cursor.fetchone()[0])
