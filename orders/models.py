"""The rows. `Order` is the truth about an order; `OrderEvent` is its history; only `lifecycle` writes a status."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Least, Now
from uuid_utils.compat import uuid7

from orders.archive_models import ArchivedOwner, ArchiveMonth, ClientKey  # noqa: F401  rows of this application, too
from orders.webhook_models import WebhookDelivery, WebhookEndpoint  # noqa: F401  likewise


def new_order_id() -> UUID:
    """UUIDv7: increasing in time, so that new rows land on the same few pages of every index."""
    return uuid7()


class Side(models.TextChoices):
    """FIX 54."""

    BUY = "buy"
    SELL = "sell"


class OrderType(models.TextChoices):
    """FIX 40."""

    MARKET = "market"
    LIMIT = "limit"
    STOP = "stop"
    STOP_LIMIT = "stop_limit"


LIMIT_TYPES = (OrderType.LIMIT, OrderType.STOP_LIMIT)
STOP_TYPES = (OrderType.STOP, OrderType.STOP_LIMIT)


class TimeInForce(models.TextChoices):
    """FIX 59."""

    DAY = "day"
    GTC = "gtc", "Good till cancel"
    IOC = "ioc", "Immediate or cancel"
    FOK = "fok", "Fill or kill"
    GTD = "gtd", "Good till date"


MULTI_DAY = (TimeInForce.GTC, TimeInForce.GTD)
"""An order of one of these goes on when a day ends."""


class Status(models.TextChoices):
    """Where an order stands (FIX 39 in brackets), who moves it on, and what a crash leaves behind."""

    PENDING = "pending"
    """[A] Stored, to be placed at `next_attempt_at`. A placement job moves it. A crash leaves it as it is."""

    SUBMITTING = "submitting"
    """[A] Claimed by one attempt, which may have a request on the wire. That attempt moves it; when its lease
    runs out, because its process died or froze, the sweep makes it `unconfirmed`."""

    UNCONFIRMED = "unconfirmed"
    """[A] Sent, outcome unknown. Reconciliation moves it, on evidence. With `parked_at` it is parked: an operator,
    who has seen the venue's screen, may decide, and it is never sent again by itself. The venue is asked on."""

    FAILED = "failed"
    """[8] Attempts spent, each of them turned away or proved not to have arrived; or an operator has said that it is
    not at the venue. An operator requeues or cancels."""

    PLACED = "placed"
    """[0] The venue acknowledged it, and it is working there."""

    PARTIALLY_FILLED = "partially_filled"
    """[1] Some of it executed."""

    PENDING_CANCEL = "pending_cancel"
    """[6] Cancel asked for at the venue, not yet confirmed."""

    PENDING_REPLACE = "pending_replace"
    """[E] Replace asked for at the venue, not yet confirmed."""

    DONE_FOR_DAY = "done_for_day"
    """[3] The venue does no more of it today. Final for an order of one day; one of many days goes on."""

    FILLED = "filled"
    """[2] Final."""

    CANCELED = "canceled"
    """[4] Final."""

    EXPIRED = "expired"
    """[C] Final."""

    REJECTED = "rejected"
    """[8] Final: the venue's own definite refusal, never a guess."""


AT_VENUE = (
    Status.PLACED,
    Status.PARTIALLY_FILLED,
    Status.PENDING_CANCEL,
    Status.PENDING_REPLACE,
    Status.DONE_FOR_DAY,
    Status.FILLED,
)
"""An order in one of these has been acknowledged, so it has the venue's id."""

WORKING = tuple(status for status in AT_VENUE if status != Status.FILLED)
"""Of those in one of these, the venue may still execute something."""

ENDINGS = ("", Status.DONE_FOR_DAY, Status.CANCELED, Status.EXPIRED, Status.REJECTED)
"""How a venue may say that it does no more of an order."""

PARKED = Q(status=Status.UNCONFIRMED, parked_at__isnull=False)
"""What `Order.parked` says, in a query. The status has PostgreSQL use an index of these rows alone."""
LOOKED_UP = Q(status=Status.UNCONFIRMED, parked_at__isnull=True)
"""Those that the venue is still being asked about, without an operator."""

READABLE = (datetime(2000, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC))

CLIENT_ORDER_ID_PATTERN = r"[A-Za-z0-9._:\-]{1,64}"


class Order(models.Model):
    id = models.UUIDField(primary_key=True, default=new_order_id, editable=False)
    owner = models.ForeignKey(  # its two indexes below begin with it
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="orders", db_index=False
    )
    client_order_id = models.CharField(max_length=64)
    venue = models.ForeignKey("exchanges.Venue", on_delete=models.PROTECT, related_name="orders", db_index=False)
    instrument = models.CharField(max_length=12)
    side = models.CharField(max_length=4, choices=Side)
    type = models.CharField(max_length=10, choices=OrderType)
    quantity = models.BigIntegerField()
    limit_price = models.DecimalField(max_digits=18, decimal_places=8, null=True)
    stop_price = models.DecimalField(max_digits=18, decimal_places=8, null=True)
    time_in_force = models.CharField(max_length=3, choices=TimeInForce)
    expires_at = models.DateTimeField(null=True)
    place_by = models.DateTimeField(null=True)  # not sent to the venue after this time: expired instead

    status = models.CharField(max_length=16, choices=Status)
    version = models.IntegerField(default=1)  # the number of events so far: the next one's sequence follows it
    attempt = models.IntegerField(default=0)  # only ever rises: the fence against a late answer
    failures = models.IntegerField(default=0)  # attempts proved not sent since the order was accepted or requeued
    next_attempt_at = models.DateTimeField(null=True)  # pending: when to place; unconfirmed: when to look it up
    lease_expires_at = models.DateTimeField(null=True)
    parked_at = models.DateTimeField(null=True)  # since when an unconfirmed order has needed an operator
    in_doubt = models.BooleanField(default=False)  # the venue did not know it, but an attempt may still arrive there
    resend_before = models.DateTimeField(null=True)  # an earlier attempt may have arrived: a re-send is safe until then
    venue_order_id = models.CharField(max_length=64, blank=True, default="")
    last_error = models.CharField(max_length=500, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    placed_at = models.DateTimeField(null=True)

    # What the venue reported of it; what follows from that is in orders.facts. The defaults are the database's, because
    # the statement that stores a new order says nothing of these.
    filled_quantity = models.BigIntegerField(db_default=0)
    filled_value = models.DecimalField(max_digits=38, decimal_places=8, db_default=0)  # the sum of quantity times price
    ended = models.CharField(max_length=12, blank=True, db_default="")  # the venue's word; empty while it works there
    open_cancel = models.UUIDField(null=True)  # a cancel, or a replace, that the venue has not answered
    open_replace = models.UUIDField(null=True)
    cancel_requested_at = models.DateTimeField(null=True)  # when the venue was last to cancel it
    current_id = models.UUIDField(null=True)  # of the replace that the venue accepted last; null: the order's own id
    venue_sequence = models.BigIntegerField(db_default=0)  # of the report that changed it last
    original_terms = models.JSONField(null=True)  # as the client submitted them, once the terms have changed
    stamp = models.BigIntegerField(db_default=1)  # of its last event
    traceparent = models.CharField(max_length=55, null=True)  # of the request that submitted it, if that was sampled

    class Meta:
        ordering = ["-id"]
        permissions = [
            ("operate_order", "Can requeue, cancel and reconcile orders"),
            ("settle_order", "Can mark a parked order placed or not placed"),
            ("use_api", "Can use the API"),  # asked of staff and superusers only: a client needs none
        ]
        constraints = [
            models.UniqueConstraint(fields=["owner", "client_order_id"], name="order_client_order_id_unique"),
            models.CheckConstraint(condition=Q(status__in=Status.values), name="order_status_known"),
            models.CheckConstraint(condition=Q(side__in=Side.values), name="order_side_known"),
            models.CheckConstraint(condition=Q(type__in=OrderType.values), name="order_type_known"),
            models.CheckConstraint(condition=Q(time_in_force__in=TimeInForce.values), name="order_tif_known"),
            models.CheckConstraint(condition=Q(instrument__regex=r"^[A-Z0-9]{12}$"), name="order_instrument_12"),
            models.CheckConstraint(condition=Q(quantity__gt=0), name="order_quantity_positive"),
            models.CheckConstraint(
                condition=Q(limit_price__isnull=True) | Q(limit_price__gt=0), name="order_limit_price_positive"
            ),
            models.CheckConstraint(
                condition=Q(stop_price__isnull=True) | Q(stop_price__gt=0), name="order_stop_price_positive"
            ),
            models.CheckConstraint(
                condition=Q(type__in=LIMIT_TYPES, limit_price__isnull=False)
                | (~Q(type__in=LIMIT_TYPES) & Q(limit_price__isnull=True)),
                name="order_limit_price_by_type",
            ),
            models.CheckConstraint(
                condition=Q(type__in=STOP_TYPES, stop_price__isnull=False)
                | (~Q(type__in=STOP_TYPES) & Q(stop_price__isnull=True)),
                name="order_stop_price_by_type",
            ),
            models.CheckConstraint(
                condition=Q(time_in_force=TimeInForce.GTD, expires_at__isnull=False)
                | (~Q(time_in_force=TimeInForce.GTD) & Q(expires_at__isnull=True)),
                name="order_expires_at_by_tif",
            ),
            models.CheckConstraint(
                condition=Q(status=Status.SUBMITTING, lease_expires_at__isnull=False)
                | (~Q(status=Status.SUBMITTING) & Q(lease_expires_at__isnull=True)),
                name="order_lease_iff_submitting",
            ),
            models.CheckConstraint(
                condition=~Q(status=Status.PENDING) | Q(next_attempt_at__isnull=False), name="order_pending_has_time"
            ),
            # beyond it Python reads no time, and one such row would spoil every list that it is in
            models.CheckConstraint(
                condition=Q(next_attempt_at__range=READABLE)
                & Q(lease_expires_at__range=READABLE)
                & Q(resend_before__range=READABLE),
                name="order_times_readable",
            ),
            models.CheckConstraint(
                condition=~Q(status=Status.UNCONFIRMED) | Q(next_attempt_at__isnull=False),
                name="order_unconfirmed_has_time",
            ),
            models.CheckConstraint(
                condition=Q(parked_at__isnull=True) | Q(status=Status.UNCONFIRMED), name="order_parked_is_unconfirmed"
            ),
            models.CheckConstraint(
                condition=~Q(status__in=AT_VENUE) | ~Q(venue_order_id=""), name="order_at_venue_has_its_id"
            ),
            # A venue may execute more than the quantity. That is evidence, and no row refuses it.
            models.CheckConstraint(condition=Q(filled_quantity__gte=0), name="order_filled_not_negative"),
            models.CheckConstraint(condition=Q(ended__in=ENDINGS), name="order_ended_known"),
        ]
        indexes = [
            # the claim: due orders of one venue, longest due first
            models.Index("venue", "next_attempt_at", name="order_due", condition=Q(status=Status.PENDING)),
            # the sweep: attempts whose lease ran out
            models.Index("venue", "lease_expires_at", name="order_leased", condition=Q(status=Status.SUBMITTING)),
            # pending orders that time may overtake before they are sent
            models.Index(
                Least("place_by", "resend_before"),
                name="order_overtaken",
                condition=Q(status=Status.PENDING) & (Q(place_by__isnull=False) | Q(resend_before__isnull=False)),
            ),
            # reconciliation: what of one venue to look up
            models.Index(
                "venue",
                "next_attempt_at",
                name="order_unconfirmed",
                condition=LOOKED_UP,
            ),
            # likewise, what is parked; and the operators' list of it
            models.Index(
                "venue",
                "next_attempt_at",
                name="order_parked",
                condition=PARKED,
            ),
            # the operators' list of what needs them
            models.Index("id", name="order_failed", condition=Q(status=Status.FAILED)),
            # a client's own list, newest first
            models.Index("owner", F("created_at").desc(), F("id").desc(), name="order_list"),
            # what an owner has at venues, to be canceled together
            models.Index("owner", "id", name="order_working", condition=Q(status__in=WORKING)),
            # the console's look-up by the venue's id
            models.Index(fields=["venue_order_id"], name="order_venue_order_id", condition=~Q(venue_order_id="")),
        ]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def parked(self) -> bool:
        """Whether it waits for an operator's word. In a query it is `PARKED`."""
        return self.parked_at is not None

    @property
    def stands(self) -> str:
        """Its status in one word, as people are shown it: an unconfirmed order that needs a person is parked."""
        return "parked" if self.parked else self.status

    def save(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("An order is written by orders.lifecycle alone: use orders.submission and orders.services")

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        raise TypeError("An order is never deleted")


class RequestStatus(models.TextChoices):
    """Where a request to cancel or replace stands, and who moves it on. `orders.requests` alone writes it."""

    WAITING = "waiting"
    """Not to be sent yet: the order is not known to be at the venue, or a replace of it is on the wire."""

    PENDING = "pending"
    """To be sent at `next_attempt_at`, perhaps once more."""

    SUBMITTING = "submitting"
    """Claimed by one attempt. When the lease of that runs out, the sweep moves it on."""

    SENT = "sent"
    """The venue has it, and has not said what came of it. A report or a look-up does."""

    UNCONFIRMED = "unconfirmed"
    """Sent, outcome unknown; or refused in a way that proves nothing. A report or a look-up moves it."""

    ACCEPTED = "accepted"
    """Final: it is done."""

    REFUSED = "refused"
    """Final: the venue did not do it. The order is as it was."""

    MOOT = "moot"
    """Final: the order ended otherwise before it was done."""

    SUPERSEDED = "superseded"
    """Final: a cancel came before this replace was sent."""

    FAILED = "failed"
    """Final: no attempt of it reached the venue, or the venue has no such function. The order is as it was."""


OPEN = (
    RequestStatus.WAITING,
    RequestStatus.PENDING,
    RequestStatus.SUBMITTING,
    RequestStatus.SENT,
    RequestStatus.UNCONFIRMED,
)
"""A request in one of these is not decided."""
ASKED_ABOUT = (RequestStatus.PENDING, RequestStatus.SENT, RequestStatus.UNCONFIRMED)
"""The venue may be asked what became of a request in one of these."""


class OrderRequest(models.Model):
    """A request to have the venue cancel an order or give it other terms.

    Its id is the venue's means to recognise it (FIX 11), and the same on every attempt. At the first claim
    `original_id` (FIX 41) and, of a replace, all `terms` are fixed, so that every attempt says the same.
    """

    class Kind(models.TextChoices):
        CANCEL = "cancel"
        REPLACE = "replace"

    id = models.UUIDField(primary_key=True, default=new_order_id, editable=False)
    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="requests", db_index=False)
    # As in an execution: the order's row has the constraints of its venue and owner, and they never change.
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", db_index=False, db_constraint=False
    )
    venue = models.ForeignKey("exchanges.Venue", models.PROTECT, related_name="+", db_index=False, db_constraint=False)
    kind = models.CharField(max_length=7, choices=Kind)
    client_order_id = models.CharField(max_length=64, blank=True, db_default="")  # the client's own id of the request

    # What a client asks to change; null, or empty, stays as it is.
    quantity = models.BigIntegerField(null=True)
    limit_price = models.DecimalField(max_digits=18, decimal_places=8, null=True)
    stop_price = models.DecimalField(max_digits=18, decimal_places=8, null=True)
    time_in_force = models.CharField(max_length=3, choices=TimeInForce, blank=True, db_default="")
    expires_at = models.DateTimeField(null=True)

    original_id = models.UUIDField(null=True)
    terms = models.JSONField(null=True)

    status = models.CharField(max_length=11, choices=RequestStatus)
    attempt = models.IntegerField(db_default=0)  # as of an order: only ever rises
    failures = models.IntegerField(db_default=0)  # attempts proved not sent
    next_attempt_at = models.DateTimeField(null=True)  # pending: when to send it
    lease_expires_at = models.DateTimeField(null=True)
    look_up_at = models.DateTimeField(null=True)  # when to ask the venue what became of it
    settled_at = models.DateTimeField(null=True)  # no earlier attempt of it can still arrive after this time
    in_doubt = models.BooleanField(db_default=False)  # an attempt of it had no answer
    code = models.CharField(max_length=500, blank=True, db_default="")  # of the venue's refusal
    last_error = models.CharField(max_length=500, blank=True, db_default="")
    actor = models.CharField(max_length=160)
    reason = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    resolved_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["owner", "client_order_id"], name="request_id_unique", condition=~Q(client_order_id="")
            ),
            # Also what finds an order's open requests.
            models.UniqueConstraint(fields=["order", "kind"], name="request_one_open", condition=Q(status__in=OPEN)),
            models.CheckConstraint(condition=Q(kind__in=["cancel", "replace"]), name="request_kind_known"),
            models.CheckConstraint(condition=Q(status__in=RequestStatus.values), name="request_status_known"),
            models.CheckConstraint(
                condition=Q(quantity__isnull=True) | Q(quantity__gt=0), name="request_quantity_positive"
            ),
            models.CheckConstraint(
                condition=(Q(limit_price__isnull=True) | Q(limit_price__gt=0))
                & (Q(stop_price__isnull=True) | Q(stop_price__gt=0)),
                name="request_prices_positive",
            ),
            models.CheckConstraint(condition=Q(time_in_force__in=["", *TimeInForce.values]), name="request_tif_known"),
            models.CheckConstraint(
                condition=Q(
                    kind="cancel",
                    quantity__isnull=True,
                    limit_price__isnull=True,
                    stop_price__isnull=True,
                    time_in_force="",
                    expires_at__isnull=True,
                )
                | (
                    Q(kind="replace")
                    & (
                        Q(quantity__isnull=False)
                        | Q(limit_price__isnull=False)
                        | Q(stop_price__isnull=False)
                        | ~Q(time_in_force="")
                        | Q(expires_at__isnull=False)
                    )
                ),
                name="request_terms_by_kind",
            ),
            models.CheckConstraint(
                condition=Q(status="submitting", lease_expires_at__isnull=False)
                | (~Q(status="submitting") & Q(lease_expires_at__isnull=True)),
                name="request_lease_iff_submitting",
            ),
            models.CheckConstraint(
                condition=~Q(status="pending") | Q(next_attempt_at__isnull=False), name="request_pending_has_time"
            ),
            models.CheckConstraint(
                condition=~Q(status__in=["sent", "unconfirmed"]) | Q(look_up_at__isnull=False),
                name="request_in_question_has_time",
            ),
            models.CheckConstraint(
                condition=Q(status__in=OPEN, resolved_at__isnull=True)
                | (~Q(status__in=OPEN) & Q(resolved_at__isnull=False)),
                name="request_resolved_iff_closed",
            ),
            models.CheckConstraint(
                condition=Q(next_attempt_at__range=READABLE)
                & Q(lease_expires_at__range=READABLE)
                & Q(look_up_at__range=READABLE)
                & Q(settled_at__range=READABLE),
                name="request_times_readable",
            ),
        ]
        indexes = [
            # the claim: cancels, then replaces
            models.Index("venue", "kind", "next_attempt_at", name="request_due", condition=Q(status="pending")),
            # the sweep, and the count of what is under way
            models.Index("venue", "lease_expires_at", name="request_leased", condition=Q(status="submitting")),
            # the look-ups
            models.Index("venue", "look_up_at", name="request_look_up", condition=Q(status__in=ASKED_ABOUT)),
            # the operators' list of what is not answered
            models.Index("created_at", name="request_unanswered", condition=Q(status__in=OPEN)),
            # an order's requests, newest first
            models.Index("order", F("id").desc(), name="request_of_order"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("A request is written by orders.requests alone: use orders.amendments")

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        raise TypeError("A request is never deleted")


class OrderEvent(models.Model):
    """One step of an order's history. Append-only: a database trigger refuses UPDATE and DELETE.

    `sequence` counts 1, 2, 3 … within the order without a gap; `id` rises over all orders, in the order in
    which the rows were inserted (not committed). The events of all orders are read in the sequence of `stamp` and `id`
    (orders.feed). `detail` is an object: what the step knew, such as the venue's code and text, the latency in
    milliseconds, or the delay until the next attempt in seconds.
    """

    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="events", db_index=False)
    sequence = models.IntegerField()
    event = models.CharField(max_length=30)
    from_status = models.CharField(max_length=16, choices=Status, blank=True)
    to_status = models.CharField(max_length=16, choices=Status)
    attempt = models.IntegerField()
    actor = models.CharField(max_length=160)
    reason = models.CharField(max_length=500, blank=True)
    detail = models.JSONField(default=dict)
    at = models.DateTimeField(db_default=Now())
    # The order's owner, and its stamp when this was written; null and 1 in events from before there was a feed.
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", null=True, db_index=False, db_constraint=False
    )
    stamp = models.BigIntegerField(db_default=1)

    class Meta:
        ordering = ["order", "sequence"]
        constraints = [
            models.UniqueConstraint(fields=["order", "sequence"], name="orderevent_sequence_unique"),
            models.CheckConstraint(condition=Q(sequence__gte=1), name="orderevent_sequence_from_1"),
        ]
        indexes = [
            # the feed: all events, and those of one client
            models.Index(fields=["stamp", "id"], name="orderevent_feed"),
            models.Index(fields=["owner", "stamp", "id"], name="orderevent_feed_of_owner"),
            BrinIndex("at", name="orderevent_at"),  # what happened within a time, to tell of it again
        ]

    def __str__(self) -> str:
        return f"{self.order_id} #{self.sequence} {self.event}"


class Execution(models.Model):
    """One execution as a venue reported it (FIX 17), or that it took one back or corrected one.

    Append-only: a database trigger refuses UPDATE and DELETE. One that another `refers_to` counts for nothing,
    whichever of the two was reported first. The sum of those that count is the order's filled quantity.
    """

    class Kind(models.TextChoices):
        EXECUTED = "executed"
        BUSTED = "busted"
        CORRECTED = "corrected"

    # The order's row has the constraints of its venue and owner, and they never change: they are not checked twice.
    venue = models.ForeignKey("exchanges.Venue", models.PROTECT, related_name="+", db_index=False, db_constraint=False)
    execution_id = models.CharField(max_length=64)
    kind = models.CharField(max_length=10, choices=Kind)
    refers_to = models.CharField(max_length=64, blank=True)  # FIX 19
    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="executions", db_index=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", db_index=False, db_constraint=False
    )
    instrument = models.CharField(max_length=12)
    side = models.CharField(max_length=4, choices=Side)
    quantity = models.BigIntegerField()
    price = models.DecimalField(max_digits=18, decimal_places=8, null=True)
    venue_sequence = models.BigIntegerField()
    executed_at = models.DateTimeField()
    recorded_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["venue", "execution_id"], name="execution_once"),
            models.CheckConstraint(
                condition=Q(kind="executed", refers_to="", quantity__gt=0, price__isnull=False, price__gt=0)
                | (Q(kind="corrected", quantity__gt=0, price__isnull=False, price__gt=0) & ~Q(refers_to=""))
                | (Q(kind="busted", quantity=0, price__isnull=True) & ~Q(refers_to="")),
                name="execution_by_kind",
            ),
        ]
        indexes = [
            # what was taken back or corrected
            models.Index(fields=["venue", "refers_to"], name="execution_referred", condition=~Q(refers_to="")),
            # a client's own list of trades, by their time
            models.Index(fields=["owner", "executed_at", "id"], name="execution_list", condition=~Q(kind="busted")),
            # those of one order
            models.Index(fields=["order"], name="execution_order"),
            # those of one position, as they were recorded
            models.Index(fields=["owner", "venue", "instrument", "id"], name="execution_position"),
        ]

    def __str__(self) -> str:
        return f"{self.venue_id} {self.execution_id}"


class Position(models.Model):
    """What an owner bought and sold of an instrument at one venue: four sums over the executions that count, and what
    that has realized (orders.positions).

    The reports of one venue are written by one session, so no two writers wait for each other here.
    """

    pk = models.CompositePrimaryKey("owner_id", "venue_id", "instrument")
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", db_index=False, db_constraint=False
    )
    venue = models.ForeignKey("exchanges.Venue", models.PROTECT, related_name="+", db_index=False, db_constraint=False)
    instrument = models.CharField(max_length=12)
    bought_quantity = models.DecimalField(max_digits=30, decimal_places=0)
    bought_value = models.DecimalField(max_digits=48, decimal_places=8)
    sold_quantity = models.DecimalField(max_digits=30, decimal_places=0)
    sold_value = models.DecimalField(max_digits=48, decimal_places=8)
    realized = models.DecimalField(max_digits=48, decimal_places=8, db_default=0)  # by the average-cost method
    version = models.BigIntegerField(db_default=1)  # what was computed from another version is not written
    # Some of its executions are no longer stored, so what it has realized cannot be computed again from them.
    incomplete = models.BooleanField(db_default=False)
    updated_at = models.DateTimeField(db_default=Now())
