"""A refusal is a problem document whichever part of the system refuses; the platform knows none of them."""

from typing import Any, ClassVar

import pytest
from django.test import RequestFactory
from rest_framework.request import Request

from orders import amendments, submission
from quiktrade.api.problems import exception_handler
from quiktrade.errors import Refusal


class Closed(Refusal):
    """A refusal that belongs to no application."""

    status: ClassVar[int] = 409
    kind: ClassVar[str] = "closed-for-today"


class ClosedUntil(Closed):
    def members(self) -> dict[str, Any]:
        return {**super().members(), "until": "09:00"}


def answer(error: Exception) -> Any:
    return exception_handler(error, {"request": Request(RequestFactory().post("/api/v1/orders")), "view": None})


def test_a_refusal_says_its_kind_its_status_and_its_sentence() -> None:
    response = answer(Closed("The market is closed. Come back tomorrow."))
    assert response.status_code == 409
    assert response.content_type == "application/problem+json"
    assert response.data == {
        "type": "urn:quiktrade:problem:closed-for-today",
        "title": "Conflict",
        "status": 409,
        "detail": "The market is closed. Come back tomorrow.",
    }


def test_a_refusal_may_say_more() -> None:
    assert answer(ClosedUntil("Closed.")).data["until"] == "09:00"


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (submission.InvalidOrder("place_by", "past", "A time in the future is required."), 400, "validation-error"),
        (amendments.CannotCancel("It is at the venue."), 409, "cannot-cancel"),
    ],
)
def test_those_of_orders_keep_their_kinds(error: Refusal, status: int, kind: str) -> None:
    response = answer(error)
    assert (response.status_code, response.data["type"]) == (status, f"urn:quiktrade:problem:{kind}")


def test_an_order_that_is_invalid_names_its_field() -> None:
    data = answer(submission.InvalidOrder("venue", "unknown_venue", "No such venue. Known: XSIM.")).data
    assert data["errors"] == [{"pointer": "#/venue", "code": "unknown_venue", "detail": "No such venue. Known: XSIM."}]
