"""The rows of requests: claims, fences, and what a request says on every attempt."""

from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, transaction

from exchanges.venue import Done, RequestRefused, VenueError
from orders import amendments, deciding, request_verdicts, requests
from orders.models import Order, OrderRequest, RequestStatus, new_order_id
from orders.requests import CANCEL, REPLACE, Changes, ClaimedRequest, Move, Refusal
from orders.tests.factories import OrderFactory
from orders.tests.test_request_verdicts import venue
from orders.tests.threads import in_threads

pytestmark = pytest.mark.django_db
ALICE: dict[str, Any] = {"actor": "client:alice", "reason": "Not wanted any more."}


def canceled() -> OrderRequest:
    order = OrderFactory(status="placed")
    amendments.request_cancel(order.pk, **ALICE)
    return OrderRequest.objects.get(order=order)


def claim(kind: str = CANCEL) -> list[ClaimedRequest]:
    return requests.claim("XSIM", kind, limit=9, in_flight=9, lease=30.0)


def again() -> None:
    OrderRequest.objects.update(
        status="pending", lease_expires_at=None, next_attempt_at="2020-01-01T00:00:00Z", look_up_at=None
    )


def test_a_request_says_the_same_on_every_attempt() -> None:
    order = OrderFactory(status="placed")
    amendments.request_replace(order.pk, Changes(limit_price=Decimal(11)), **ALICE)
    (first,) = claim(REPLACE)
    again()
    Order.objects.update(quantity=70, current_id=new_order_id())  # as a report of the venue does
    (second,) = claim(REPLACE)
    assert (first.terms, first.original_id) == (second.terms, second.original_id)
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.terms is not None
    assert (first.terms.quantity, first.terms.limit_price) == (100, Decimal(11))


def test_the_terms_from_before_are_kept_with_a_replace() -> None:
    order = OrderFactory(status="placed")
    amendments.request_replace(order.pk, Changes(quantity=70), **ALICE)
    assert len(claim(REPLACE)) == 1
    Order.objects.update(quantity=90)  # as a report of the venue does
    for terms in ("terms", "terms - 'before'"):  # a row of before the terms were kept has those of now
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE orders_orderrequest SET terms = {terms}")
        again()
        OrderRequest.objects.update(look_up_at="2020-01-01T00:00:00Z")
        (due,) = requests.claim_lookups("XSIM", limit=9, seconds=1.0)
        assert due.terms is not None
        assert (due.before.quantity, due.terms.quantity) == (100 if terms == "terms" else 90, 70)


def test_an_outcome_counts_for_its_own_attempt_alone() -> None:
    canceled()
    (first,) = claim()
    again()
    (second,) = claim()
    late = Move(id=first.id, attempt=1, status=RequestStatus.PENDING, delay=9.0)
    assert requests.move([late]) == []
    own = Move(id=second.id, attempt=2, status=RequestStatus.PENDING, delay=9.0)
    assert [moved.status for moved in requests.move([own])] == ["pending"]


def sent_again() -> tuple[ClaimedRequest, ClaimedRequest]:
    """A replace whose first worker froze, and which another one sends again."""
    amendments.request_replace(OrderFactory(status="placed").pk, Changes(quantity=70), **ALICE)
    (first,) = claim(REPLACE)
    OrderRequest.objects.update(lease_expires_at="2020-01-01T00:00:00Z")
    assert len(requests.sweep("XSIM", settle=0.0, limit=9)) == 1
    again()
    (second,) = claim(REPLACE)
    return first, second


def record(request: ClaimedRequest, answer: Done | VenueError) -> OrderRequest:
    verdict = request_verdicts.after_attempt(request, answer, venue(), lease_left=9.0)
    with transaction.atomic():
        deciding.record("XSIM", [verdict], actor="system:test")
    return OrderRequest.objects.get()


def test_a_late_refusal_of_an_attempt_does_not_decide_a_later_one() -> None:
    first, second = sent_again()
    assert not first.in_doubt
    row = record(first, RequestRefused("halted"))
    assert (row.status, row.attempt, row.code) == ("submitting", 2, "halted")
    assert record(second, Done(venue_order_id="V1")).status == "accepted"


def test_a_refusal_of_the_only_attempt_decides_it() -> None:
    amendments.request_replace(OrderFactory(status="placed").pk, Changes(quantity=70), **ALICE)
    (only,) = claim(REPLACE)
    assert record(only, RequestRefused("halted")).status == "refused"


def test_a_look_up_refuses_nothing_that_was_sent_again_meanwhile() -> None:
    _, second = sent_again()
    for attempt, status, doubted in (
        (1, "submitting", True),
        (2, "submitting", True),
        (1, "unconfirmed", True),
        (2, "unconfirmed", False),
    ):
        lease = OrderRequest.objects.get().lease_expires_at if status == "submitting" else None
        OrderRequest.objects.update(status=status, lease_expires_at=lease)
        refusal = Refusal(id=second.id, code="too_late", attempt=attempt, looked_up=True)
        assert requests.doubt([refusal]) == ({second.id} if doubted else set())
    assert OrderRequest.objects.get().code == ""


def test_claims_keep_to_what_may_be_in_flight() -> None:
    for _ in range(3):
        canceled()
    claimed = requests.claim("XSIM", CANCEL, limit=9, in_flight=2, lease=30.0)
    assert len(claimed) == 2
    assert requests.claim("XSIM", CANCEL, limit=9, in_flight=2, lease=30.0) == []


@pytest.mark.django_db(transaction=True)
def test_a_claim_passes_over_what_another_worker_holds() -> None:
    canceled()

    def elsewhere(n: int) -> list[ClaimedRequest]:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '2s'")
        return claim()

    with transaction.atomic():
        assert len(claim()) == 1
        assert in_threads(1, elsewhere) == [[]]
