"""What an operator may do to orders. Each intent calls a service, which explains what it refuses row by row."""

import re
import shlex
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from django import forms
from django.http import QueryDict
from unfold.widgets import UnfoldAdminTextInputWidget

from orders.admin.following import NO_CAUSE
from orders.amendments import CannotReplace, InvalidChange, request_replace
from orders.cancels import cancel_anywhere
from orders.facts import leaves_quantity
from orders.lifecycle import TRANSITIONS, Event
from orders.models import WORKING, Order, Status
from orders.reconciliation import mark_not_placed, mark_placed, reconcile_orders
from orders.requests import Changes
from orders.services import cancel_orders, requeue_orders
from quiktrade.console.intents import Intent, ReasonForm
from quiktrade.outcomes import Outcome


def _requeue(keys: Sequence[str], actor: str, answers: Mapping[str, str]) -> list[Outcome]:
    return requeue_orders([UUID(key) for key in keys], actor=actor, reason=answers["reason"])


def _cancel(keys: Sequence[str], actor: str, answers: Mapping[str, str]) -> list[Outcome]:
    return cancel_orders([UUID(key) for key in keys], actor=actor, reason=answers["reason"])


def _reconcile(keys: Sequence[str], actor: str, answers: Mapping[str, str]) -> list[Outcome]:
    # The history says who asked and what the venue answered. No reason is asked for: an unchanged order has no event.
    return reconcile_orders([UUID(key) for key in keys], actor=actor)


def _requeue_command(asked: QueryDict) -> str | None:
    """None if the command would take other orders than the list shows: it can choose only by venue, error and age."""
    needs, statuses, venues = asked.get("needs"), asked.getlist("status__exact"), asked.getlist("venue__code__exact")
    older = re.fullmatch(r"gt([0-9]+[mhd])", asked.get("age", "gt0m"))
    known = {"needs", "status__exact", "venue__code__exact", "cause", "age"}
    if set(asked) - known or needs not in (None, "operator") or len(venues) > 1 or older is None:
        return None
    if (statuses and Status.FAILED not in statuses) or asked.get("cause") == NO_CAUSE:
        return None
    words = [f"--venue {shlex.quote(code)}" for code in venues]
    if cause := asked.get("cause"):
        words.append(f"--error {shlex.quote(cause)}")
    if "age" in asked or not words:
        words.append(f"--older-than {older[1]}")
    return f'python3 manage.py requeue_orders {" ".join(words)} --reason "…"'


REQUEUE = Intent(
    name="requeue",
    verb="Requeue",
    done="requeued",
    icon="replay",
    permission="orders.operate_order",
    explanation="Failed orders are tried again at once, with a fresh count of attempts. That is safe: nothing of them "
    "is at the venue. One whose place-by time has passed expires instead. Orders that have not failed are left as "
    "they are.",
    act=_requeue,
    command=_requeue_command,
)
CANCEL = Intent(
    name="cancel",
    verb="Cancel",
    done="canceled",
    icon="block",
    permission="orders.operate_order",
    explanation="Pending and failed orders are canceled for good; nothing of them is at the venue. Orders that have "
    "been sent are left as they are.",
    act=_cancel,
    grave=True,
)
RECONCILE = Intent(
    name="reconcile",
    verb="Reconcile",
    done="reconciled",
    icon="travel_explore",
    permission="orders.operate_order",
    explanation="The venue is asked now what became of these unconfirmed orders, parked ones too. They move only on "
    "its word; without it they stay unconfirmed.",
    act=_reconcile,
    form=forms.Form,
    most=100,  # each call may take as long as the venue's deadline, and the page waits for all
)


class VenueOrderIdForm(ReasonForm):
    venue_order_id = forms.CharField(
        label="Venue's order id",
        max_length=64,
        widget=UnfoldAdminTextInputWidget(),
        error_messages={"required": "The venue's own id of the order, as its screen shows it."},
    )
    field_order = ("venue_order_id", "reason")


def _mark_placed(keys: Sequence[str], actor: str, answers: Mapping[str, str]) -> list[Outcome]:
    told = {"venue_order_id": answers["venue_order_id"], "actor": actor, "reason": answers["reason"]}
    return [mark_placed(UUID(key), **told) for key in keys]


def _mark_not_placed(keys: Sequence[str], actor: str, answers: Mapping[str, str]) -> list[Outcome]:
    return [mark_not_placed(UUID(key), actor=actor, reason=answers["reason"]) for key in keys]


MARK_PLACED = Intent(
    name="mark-placed",
    verb="Mark placed",
    done="marked placed",
    icon="task_alt",
    permission="orders.settle_order",
    explanation="For a parked order that you have seen at the venue. The venue is asked once more first; where it "
    "says something else, that is recorded instead of your word.",
    act=_mark_placed,
    form=VenueOrderIdForm,
    most=1,
    grave=True,
)
MARK_NOT_PLACED = Intent(
    name="mark-not-placed",
    verb="Mark not placed",
    done="marked not placed",
    icon="do_not_disturb_on",
    permission="orders.settle_order",
    explanation="For a parked order that is not at the venue, as you know from its screen or its desk. The venue is "
    "asked once more first. The order is failed then: requeue or cancel it.",
    act=_mark_not_placed,
    most=20,
    grave=True,
)


# ---- At the venue ----


def _cancel_at_venue(keys: Sequence[str], actor: str, answers: Mapping[str, str]) -> list[Outcome]:
    return cancel_anywhere([UUID(key) for key in keys], actor=actor, reason=answers["reason"])


def _price() -> forms.DecimalField:
    return forms.DecimalField(
        required=False,
        max_digits=18,
        decimal_places=8,
        min_value=Decimal("0.00000001"),
        error_messages={"min_value": "A price above zero is required."},
        widget=UnfoldAdminTextInputWidget(),
    )


class ReplaceForm(ReasonForm):
    """The terms to change. What is left empty stays as it is."""

    quantity = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=10**12,
        label="Quantity, in total",
        widget=UnfoldAdminTextInputWidget(),
    )
    limit_price = _price()
    stop_price = _price()
    field_order = ("quantity", "limit_price", "stop_price", "reason")

    def clean(self) -> dict[str, Any] | None:
        given = super().clean()
        if not self.errors and not any(self.cleaned_data.get(name) for name in REPLACED):
            raise forms.ValidationError("Name at least one term to change: quantity, limit price or stop price.")
        return given


REPLACED = ("quantity", "limit_price", "stop_price")


def _replace(keys: Sequence[str], actor: str, answers: Mapping[str, Any]) -> list[Outcome]:
    changes = Changes(**{name: answers.get(name) for name in REPLACED})
    return [_replaced(UUID(key), changes, actor, answers["reason"]) for key in keys]


def _replaced(order_id: UUID, changes: Changes, actor: str, reason: str) -> Outcome:
    try:
        request_replace(order_id, changes, actor=actor, reason=reason)
    except Order.DoesNotExist:
        return Outcome(order_id, False, "There is no such order.")
    except InvalidChange as error:
        field = error.field.replace("_", " ").capitalize()
        return Outcome(order_id, False, f"{field}: {error.detail}" if field else error.detail)
    except CannotReplace as error:
        return Outcome(order_id, False, str(error))
    return Outcome(order_id, True, "its venue is asked to replace it")


CANCEL_AT_VENUE = Intent(
    name="cancel-at-venue",
    verb="Cancel at the venue",
    done="asked to be canceled",
    icon="cancel",
    permission="orders.operate_order",
    explanation="The venues are asked to cancel these orders, also where a venue is halted. An order is canceled when "
    "its venue says so; it may be executed until then. An order of which nothing is at a venue is canceled at once.",
    act=_cancel_at_venue,
    grave=True,
)
REPLACE = Intent(
    name="replace",
    verb="Replace at the venue",
    done="asked to be replaced",
    icon="edit",
    permission="orders.operate_order",
    explanation="The venue is asked to give the order other terms. What is left empty stays as it is, and the quantity "
    "is the total, with what is executed already. The order has its new terms when the venue says so.",
    act=_replace,
    form=ReplaceForm,
    most=1,
)
INTENTS = (REQUEUE, RECONCILE, MARK_PLACED, MARK_NOT_PLACED, REPLACE, CANCEL_AT_VENUE, CANCEL)


def applies(intent: Intent, order: Order) -> bool:
    """Whether the order as it stands would not be refused."""
    if intent in (MARK_PLACED, MARK_NOT_PLACED):
        return order.parked
    if intent is CANCEL_AT_VENUE:
        may_be_there = order.status in (*WORKING, Status.SUBMITTING, Status.UNCONFIRMED) or order.in_doubt
        return may_be_there and order.open_cancel is None and leaves_quantity(order) > 0
    if intent is REPLACE:
        asked = order.open_cancel is not None or order.open_replace is not None
        return order.status in WORKING and not asked and leaves_quantity(order) > 0
    if intent is RECONCILE:
        return order.status == Status.UNCONFIRMED
    event = Event.REQUEUED if intent is REQUEUE else Event.CANCEL_REQUESTED
    return (Status(order.status), event) in TRANSITIONS
