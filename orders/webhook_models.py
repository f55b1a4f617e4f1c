"""The rows of webhooks. `orders.webhooks` writes them; they stand here because `orders.models` must import them."""

from uuid import UUID

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

LONGEST_URL = 1000


def new_webhook_id() -> UUID:
    return uuid7()


class WebhookEndpoint(models.Model):
    """An address of a client that is told of the client's order events.

    (`cursor_stamp`, `cursor_id`) is the position of the last event that was looked at for it. It does not move while
    the endpoint is disabled, and starts again at the newest event when it is enabled.
    """

    id = models.UUIDField(primary_key=True, default=new_webhook_id, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    url = models.CharField(max_length=LONGEST_URL)
    description = models.CharField(max_length=200, blank=True)
    event_types = ArrayField(models.CharField(max_length=40), default=list, blank=True)  # none: all of them
    secret = models.CharField(max_length=100)
    old_secret = models.CharField(max_length=100, blank=True)  # signs as well, until `old_secret_until`
    old_secret_until = models.DateTimeField(null=True)
    cursor_stamp = models.BigIntegerField()
    cursor_id = models.BigIntegerField()
    created_at = models.DateTimeField(db_default=Now())
    disabled_at = models.DateTimeField(null=True)
    disabled_by = models.CharField(max_length=160, blank=True)
    disabled_reason = models.CharField(max_length=500, blank=True)
    deleted_at = models.DateTimeField(null=True)  # by its client; its rows are removed later

    # How its receiver does, written by the statement that records deliveries.
    failing_since = models.DateTimeField(null=True)  # the first failure after its last success
    failures = models.IntegerField(default=0)  # since its last success
    slow = models.BooleanField(default=False)  # its last answer took long
    paused_until = models.DateTimeField(null=True)  # nothing is sent to it before
    last_success_at = models.DateTimeField(null=True)  # to the minute
    last_error = models.CharField(max_length=500, blank=True)

    class Meta:
        verbose_name = "webhook"
        ordering = ["-id"]
        permissions = [("operate_webhook", "Can enable and disable webhooks and send their events again")]
        constraints = [
            models.CheckConstraint(
                condition=Q(disabled_at__isnull=True) | ~Q(disabled_reason=""), name="webhook_disabled_says_why"
            ),
            models.CheckConstraint(
                condition=Q(old_secret="", old_secret_until__isnull=True)
                | (~Q(old_secret="") & Q(old_secret_until__isnull=False)),
                name="webhook_old_secret_ends",
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)


class WebhookDelivery(models.Model):
    """One event for one endpoint, until the receiver has answered 2xx or its attempts are spent.

    `attempt` only rises: it is the fence against a late result. `failures` counts since it was last made due anew and
    says when the next attempt is. Without an event it is a test.
    """

    class Status(models.TextChoices):
        PENDING = "pending"
        """To be sent at `due_at`."""
        SENDING = "sending"
        """One attempt is under way. When its process dies, it is due again at `due_at`."""
        DELIVERED = "delivered"
        """The receiver answered 2xx. Final, and removed after some days."""
        DEAD = "dead"
        """Its attempts are spent. The client or an operator may have it sent again."""

    id = models.BigAutoField(primary_key=True)
    endpoint = models.ForeignKey(WebhookEndpoint, on_delete=models.CASCADE, related_name="deliveries", db_index=False)
    # An order with a delivery is not archived, so the constraint needs not be checked with every delivery.
    event = models.ForeignKey(
        "orders.OrderEvent", models.PROTECT, related_name="+", null=True, db_index=False, db_constraint=False
    )
    status = models.CharField(max_length=9, choices=Status, default=Status.PENDING)
    attempt = models.IntegerField(default=0)
    failures = models.IntegerField(default=0)
    due_at = models.DateTimeField(db_default=Now())
    created_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True)  # when it was delivered, or given up
    last_code = models.IntegerField(null=True)  # the HTTP status of the last answer; null: there was none
    last_text = models.CharField(max_length=500, blank=True)  # the beginning of that answer, or why there was none
    latency_ms = models.IntegerField(null=True)

    class Meta:
        verbose_name = "webhook delivery"
        verbose_name_plural = "webhook deliveries"
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["endpoint", "event"], name="webhook_event_once"),
            models.CheckConstraint(
                condition=Q(status__in=["pending", "sending"], ended_at__isnull=True)
                | Q(status__in=["delivered", "dead"], ended_at__isnull=False),
                name="webhook_ended_iff_over",
            ),
        ]
        indexes = [
            # the claim: what of one endpoint is due
            models.Index("endpoint", "due_at", name="webhook_due", condition=Q(status__in=["pending", "sending"])),
            # what of one endpoint is under way
            models.Index("endpoint", "due_at", name="webhook_sending", condition=Q(status="sending")),
            # what is old enough to be removed
            models.Index("status", "ended_at", name="webhook_ended", condition=Q(ended_at__isnull=False)),
            # an endpoint's list, newest first; and of that the dead letters
            models.Index("endpoint", "id", name="webhook_list"),
            models.Index("endpoint", "id", name="webhook_dead", condition=Q(status="dead")),
        ]

    def __str__(self) -> str:
        return self.message_id

    @property
    def message_id(self) -> str:
        """The same at every attempt, so that a receiver can tell a repetition."""
        return f"evt_{self.event_id}" if self.event_id is not None else f"test_{self.pk}"

    @property
    def type(self) -> str:
        return f"order.{self.event.event}" if self.event else "webhook.test"
