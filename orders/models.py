"""The rows. `Order` is the truth about an order; `OrderEvent` is its history; only `lifecycle` writes a status."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Least, Now
from uuid_utils.compat import uuid7


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

    FILLED = "filled"
    """[2] Final."""

    CANCELED = "canceled"
    """[4] Final."""

    EXPIRED = "expired"
    """[C] Final."""

    REJECTED = "rejected"
    """[8] Final: the venue's own definite refusal, never a guess."""


AT_VENUE = (Status.PLACED, Status.PARTIALLY_FILLED, Status.PENDING_CANCEL, Status.PENDING_REPLACE, Status.FILLED)
"""An order in one of these has been acknowledged, so it has the venue's id."""

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


class OrderEvent(models.Model):
    """One step of an order's history. Append-only: a database trigger refuses UPDATE and DELETE.

    `sequence` counts 1, 2, 3 … within the order without a gap; `id` rises over all orders, in the order in
    which the rows were inserted (not committed). `detail` is an object: what the step knew, such as the
    venue's code and text, the latency in milliseconds, or the delay until the next attempt in seconds.
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

    class Meta:
        ordering = ["order", "sequence"]
        constraints = [
            models.UniqueConstraint(fields=["order", "sequence"], name="orderevent_sequence_unique"),
            models.CheckConstraint(condition=Q(sequence__gte=1), name="orderevent_sequence_from_1"),
        ]

    def __str__(self) -> str:
        return f"{self.order_id} #{self.sequence} {self.event}"
