"""How the console shows an order: its status, what it waits for, its terms."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from orders.executions import Trade
from orders.facts import average_price, leaves_quantity
from orders.models import Order, OrderEvent, Status
from quiktrade.console.pages import clipped, code, label, muted, two, who
from quiktrade.console.times import age, ahead, exact, stamp
from quiktrade.decimals import decimal_text
from quiktrade.tracing.traceparent import trace_of

KINDS: Mapping[str, str] = {
    Status.PENDING: "info",
    Status.SUBMITTING: "info",
    Status.UNCONFIRMED: "warning",
    Status.FAILED: "danger",
    Status.PLACED: "success",
    Status.PARTIALLY_FILLED: "success",
    Status.PENDING_CANCEL: "info",
    Status.PENDING_REPLACE: "info",
    Status.DONE_FOR_DAY: "info",
    Status.FILLED: "success",
    Status.REJECTED: "danger",
}

STANDING: Mapping[str, str] = {
    Status.PENDING: "Stored and waiting to be sent. Nothing of it is at the venue, so it can be canceled here.",
    Status.SUBMITTING: "Being sent at this moment. If its process dies, it becomes unconfirmed when the lease ends.",
    Status.UNCONFIRMED: "Sent, but the venue's answer is missing: it may be working there. It is looked up at the "
    "venue by itself, and is never sent again on a guess.",
    Status.FAILED: "Nothing of it is at the venue: its attempts were turned away or did not arrive, or an operator "
    "has said so. Requeue it to have it tried again with a fresh count of attempts, or cancel it.",
    Status.PLACED: "The venue has it and it is working there.",
    Status.PARTIALLY_FILLED: "The venue has it and executed a part.",
    Status.PENDING_CANCEL: "The venue was asked to cancel it and has not confirmed that yet.",
    Status.PENDING_REPLACE: "The venue was asked to change it and has not confirmed that yet.",
    Status.DONE_FOR_DAY: "The venue does no more of it today. An order of one day is over with that; one that is good "
    "for longer goes on when the venue says so.",
    Status.FILLED: "Executed in full. Final.",
    Status.CANCELED: "Canceled. Final.",
    Status.EXPIRED: "Its time ran out. Final.",
    Status.REJECTED: "The venue refused it for good; its word is the last error. Final: a new order is needed.",
}
TROUBLED = {"silent": "silent", "paused": "paused", "locked_out": "locked"}
PARKED = (
    "Parked: it was sent, its outcome is unknown, and it is not sent again by itself; the last error says why. Find "
    "out from the venue, on its screen or by telephone, whether it has the order by this id, and mark it placed or "
    "not placed. Meanwhile the venue is asked on, ever more rarely, and what it says of the order is recorded. "
    "Reconcile asks now."
)
EXPIRES_AT_ONCE = "Its place-by time has passed: requeued, it expires at once and is not sent."


@dataclass(frozen=True, slots=True)
class Standing:
    status: SafeString
    since: SafeString
    meaning: str
    waits_for: SafeString


def standing(order: Order) -> Standing:
    return Standing(
        status_label(order),
        exact(age(order.updated_at), order.updated_at),
        meaning(order),
        waits_for(order),
    )


def meaning(order: Order) -> str:
    if order.parked:
        return PARKED
    late = f" {EXPIRES_AT_ONCE}" if order.status == Status.FAILED and is_late(order) else ""
    return STANDING[order.status] + late


def is_late(order: Order) -> bool:
    return order.place_by is not None and order.place_by <= timezone.now()


def status_label(order: Order) -> SafeString:
    if order.parked:
        return label("Parked", "danger", title=PARKED)
    return label(order.get_status_display(), KINDS.get(order.status, "default"), title=STANDING[order.status])


def waits_for(order: Order) -> SafeString:
    """What happens to the order next, and when."""
    if order.status == Status.FAILED or order.parked:
        return SafeString("an operator")
    if order.status == Status.SUBMITTING and order.lease_expires_at:
        return exact("its answer", order.lease_expires_at)
    if order.next_attempt_at is None:
        return SafeString("")
    if order.status == Status.PENDING and order.venue.halted:
        return SafeString("its halted venue")
    circuit = order.venue.open_circuit if order.status == Status.PENDING else None
    if circuit and circuit.retry_at and circuit.retry_at > order.next_attempt_at:
        return exact(
            f"its {TROUBLED.get(circuit.trouble, 'silent')} venue, probed {ahead(circuit.retry_at)}", circuit.retry_at
        )
    step = "look-up" if order.status == Status.UNCONFIRMED else "attempt"
    return exact(f"{step} {ahead(order.next_attempt_at)}", order.next_attempt_at)


def name(order: Order) -> SafeString:
    """The client's id for it, if it chose one, and ours, shortened."""
    ours = str(order.pk)
    short = format_html('<span class="console-code" title="{}">{}…{}</span>', ours, ours[:8], ours[-12:])
    if order.client_order_id == ours:
        return short
    return two(clipped(order.client_order_id), short)


def title(order: Order) -> str:
    """The title of the browser's tab: the order and its status."""
    ours = str(order.pk)
    name = order.client_order_id if order.client_order_id != ours else f"{ours[:8]}…{ours[-12:]}"
    return f"{order.stands.replace('_', ' ').capitalize()} – {name}"


def link(order: Order) -> SafeString:
    url = reverse("admin:orders_order_change", args=[order.pk])
    return format_html('<a href="{}" class="text-link">{}</a>', url, name(order))


def decimal(value: Decimal | None) -> str:
    """The number without the zeros that the column adds."""
    return "" if value is None else decimal_text(value)


def trade(order: Order) -> str:
    return f"{order.get_side_display()} {order.quantity:,} {order.instrument}"


def conditions(order: Order) -> str:
    parts = [order.get_type_display().lower()]
    if order.limit_price:
        parts.append(f"at {decimal(order.limit_price)}")
    if order.stop_price:
        parts.append(f"from {decimal(order.stop_price)}")
    return f"{' '.join(parts)}, {order.time_in_force}"


def terms(order: Order) -> str:
    return ", ".join([f"{trade(order)} {conditions(order)}", *deadlines(order)])


def deadlines(order: Order) -> list[str]:
    """The times of "good till" and "place by", to the minute."""
    times = [("until", order.expires_at), ("place by", order.place_by)]
    if order.place_by == order.expires_at:  # an order that is good till a date is placed by then
        times.pop()
    return [f"{word} {at.astimezone(UTC):%Y-%m-%d %H:%M} UTC" for word, at in times if at]


def error(order: Order) -> SafeString:
    return clipped(order.last_error)


def chosen_row(order: Order, *, applies: bool, requeues: bool = False) -> list[SafeString | str]:
    what: SafeString | str = "" if applies else label("will be refused", "warning")
    if applies and requeues and is_late(order):
        what = label("expires at once", "warning", title=EXPIRES_AT_ONCE)
    return [link(order), order.venue_id, terms(order), status_label(order), error(order), what]


def trace(trace_id: str) -> SafeString:
    """The trace of an order, as a link if it is known where traces are shown."""
    if not settings.TRACE_URL:
        return code(trace_id)
    url = settings.TRACE_URL.replace("{trace_id}", trace_id)
    return format_html('<a href="{}" class="text-link" target="_blank" rel="noopener">{}</a>', url, code(trace_id))


def facts(order: Order, *, archived: bool = False) -> list[tuple[str, list[tuple[str, SafeString | str]]]]:
    """Everything about the order except its status, in groups. The executions of an archived one are in no list."""
    return [
        (
            "Terms",
            [
                ("Instrument", code(order.instrument)),
                ("Side", order.get_side_display()),
                ("Quantity", f"{order.quantity:,}"),
                ("Type", order.get_type_display()),
                ("Limit price", decimal(order.limit_price)),
                ("Stop price", decimal(order.stop_price)),
                ("Time in force", order.get_time_in_force_display()),
                ("Expires at", moment(order.expires_at)),
                ("Place by", moment(order.place_by)),
            ],
        ),
        (
            "Placement",
            [
                ("Venue", venue_link(order)),
                ("Venue's order id", code(order.venue_order_id) if order.venue_order_id else ""),
                ("Attempts", f"{order.attempt}"),
                ("Not sent", f"{order.failures} since it was accepted or requeued"),
                ("Waits for", waits_for(order)),
                ("Placed", moment(order.placed_at)),
                ("Last change", moment(order.updated_at)),
            ],
        ),
        (
            "Execution",
            [
                ("Executed", executed(order, listed=not archived)),
                ("Left", f"{leaves_quantity(order):,}"),
                ("Average price", decimal(average_price(order.filled_value, order.filled_quantity))),
                ("Ended at the venue", order.ended.replace("_", " ")),
            ],
        ),
        (
            "Client",
            [
                ("Client", order.owner.get_username()),
                ("Client's order id", code(order.client_order_id)),
                ("Order id", code(order.pk)),
                ("Accepted", moment(order.created_at)),
                *([("Trace", trace(trace_id))] if (trace_id := trace_of(order.traceparent)) else []),
            ],
        ),
    ]


EXECUTIONS = ["Executed (UTC)", "Venue's id of it", "Quantity", "Price", "Counts"]


def execution_row(trade: Trade) -> list[SafeString | str]:
    later = [("Taken back", "danger", trade.busted_by), ("Corrected", "warning", trade.corrected_by)]
    gone = [two(label(text, kind), code(name)) for text, kind, name in later if name]
    at = exact(trade.executed_at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3], trade.executed_at)
    counts = gone[0] if gone else label("Yes", "success")
    return [at, code(trade.execution_id), f"{trade.quantity:,}", decimal(trade.price), counts]


def executed(order: Order, *, listed: bool = True) -> SafeString:
    """The quantity, and where its executions are."""
    url = f"{reverse('admin:orders_execution_changelist')}?order={order.pk}"
    share = f"{order.filled_quantity:,} of {order.quantity:,}"
    return (
        format_html('<a href="{}" class="text-link">{}</a>', url, share)
        if order.filled_quantity and listed
        else SafeString(share)
    )


def moment(at: datetime | None) -> SafeString:
    if at is None:
        return SafeString("")
    return format_html("{} <small>{}</small>", stamp(at), f"{age(at)} ago" if at <= timezone.now() else ahead(at))


def venue_link(order: Order) -> SafeString:
    url = reverse("admin:exchanges_venue_change", args=[order.venue_id])
    halted = label("halted", "warning", title=order.venue.halt_reason) if order.venue.halted else ""
    return format_html('<a href="{}" class="text-link">{}</a> {}', url, order.venue, halted)


HISTORY = ["#", "Time (UTC)", "Event", "Status", "Attempt", "Actor", "Reason", "Detail"]


def history_row(event: OrderEvent, order: Order) -> list[SafeString | str]:
    """The outcome of the last event is the order's status, in the same word as in the page's head."""
    before = format_html("{} → ", event.get_from_status_display()) if event.from_status else ""
    after = label(event.get_to_status_display(), KINDS.get(event.to_status, "default"))
    if event.sequence == order.version:
        after = status_label(order)
    return [
        str(event.sequence),
        exact(event.at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3], event.at),
        event.event.replace("_", " "),
        format_html('<span class="whitespace-nowrap">{}{}</span>', before, after),
        str(event.attempt or ""),
        who(event.actor),
        event.reason,
        detail(event.detail),
    ]


def detail(values: Mapping[str, Any]) -> SafeString:
    return muted(", ".join(f"{key.replace('_', ' ')} {value}" for key, value in values.items()))
