"""Venues, and the history of who halted and resumed them."""

from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from exchanges.venue import VenueTrouble


class Venue(models.Model):
    """An exchange or broker that takes orders.

    Halted: orders for it are still accepted and wait; nothing but cancels is sent. Disabled: orders for it are refused.
    """

    code = models.CharField(
        primary_key=True,
        max_length=4,
        validators=[RegexValidator(r"\A[A-Z0-9]{4}\Z", "Four characters A-Z 0-9: a market identifier code.")],
        help_text="Market identifier code (ISO 10383), FIX 100.",
    )
    name = models.CharField(max_length=100)
    adapter = models.CharField(max_length=50, help_text="The name of an adapter in exchanges/registry.py.")
    settings = models.JSONField(default=dict, blank=True, help_text="What the adapter needs, such as its address.")
    enabled = models.BooleanField(default=True, help_text="Off: orders for this venue are refused.")
    is_default = models.BooleanField(default=False, help_text="Takes the orders that name no venue.")
    max_in_flight = models.PositiveIntegerField(
        default=1024,
        validators=[MinValueValidator(1)],
        help_text="Orders being sent at once, by all worker nodes together.",
    )
    max_per_second = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Orders sent in a second, by all worker nodes together. Empty: as many as there are.",
    )
    halted_at = models.DateTimeField(null=True, blank=True, editable=False)
    halted_by = models.CharField(max_length=160, blank=True, editable=False)
    halt_reason = models.CharField(max_length=500, blank=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["code"]
        constraints = [
            models.CheckConstraint(condition=Q(code__regex=r"^[A-Z0-9]{4}$"), name="venue_code_is_a_mic"),
            models.CheckConstraint(condition=Q(max_in_flight__gte=1), name="venue_sends_at_least_one"),
            models.CheckConstraint(
                condition=Q(max_per_second__isnull=True) | Q(max_per_second__gte=1), name="venue_rate_positive"
            ),
            models.UniqueConstraint(fields=["is_default"], condition=Q(is_default=True), name="venue_one_default"),
            models.CheckConstraint(
                condition=Q(halted_at__isnull=True, halted_by="", halt_reason="")
                | (Q(halted_at__isnull=False) & ~Q(halted_by="") & ~Q(halt_reason="")),
                name="venue_halt_has_actor_and_reason",
            ),
        ]
        permissions = [("halt_venue", "Can halt and resume a venue")]

    def __str__(self) -> str:
        return f"{self.code} {self.name}"

    @property
    def halted(self) -> bool:
        return self.halted_at is not None

    @property
    def known_health(self) -> "VenueHealth | None":
        """None before its first order. Lists select `health` with their venues."""
        return getattr(self, "health", None)

    @property
    def open_circuit(self) -> "VenueHealth | None":
        """The venue's health while it is in trouble: silent, paused or locked out."""
        health = self.known_health
        return health if health and health.retry_at else None


class VenueHealth(models.Model):
    """A venue's circuit and its rate limit, shared by all workers. Only `exchanges.circuit` writes it.

    `trouble` says why nothing is sent to it, `opened_at` since when, `last_error` what it said. Nothing is sent
    before `retry_at`, and one probe after it. `paused_until` is what the venue asked for.
    """

    class Trouble(models.TextChoices):
        SILENT = "silent", "Not answering"
        PAUSED = VenueTrouble.PAUSED.value, "Paused"
        LOCKED_OUT = VenueTrouble.LOCKED_OUT.value, "Credentials refused"

    venue = models.OneToOneField(Venue, on_delete=models.CASCADE, primary_key=True, related_name="health")
    silences = models.IntegerField(default=0)  # requests without an answer since the last answer
    trouble = models.CharField(max_length=12, choices=Trouble, blank=True, default="", db_default="")
    opened_at = models.DateTimeField(null=True)
    retry_at = models.DateTimeField(null=True)
    paused_until = models.DateTimeField(null=True)
    probes = models.IntegerField(default=0)  # failed probes since the circuit opened; the wait doubles with each
    last_error = models.CharField(max_length=500, blank=True, default="")
    tokens = models.FloatField(default=0.0)  # sends that were available at `tokens_at`
    tokens_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"{self.venue_id} {self.get_trouble_display() or 'answering'}"


class VenueEvent(models.Model):
    """Append-only: a database trigger refuses UPDATE and DELETE."""

    venue = models.ForeignKey(Venue, on_delete=models.PROTECT, related_name="events")
    event = models.CharField(
        max_length=30,
        choices=[
            ("halted", "Halted"),
            ("resumed", "Resumed"),
            ("circuit_opened", "Circuit opened"),
            ("circuit_closed", "Circuit closed"),
            ("paused", "Paused by the venue"),
            ("locked_out", "Credentials refused"),
        ],
    )
    actor = models.CharField(max_length=160)
    reason = models.CharField(max_length=500)
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.venue_id} {self.event}"


class ReportSession(models.Model):
    """How far a venue's report stream was read, and who reads it.

    `stream` is the venue's name for a series of numbers: another one begins with a new journal or a new day. The
    reports of a batch and `next_sequence` are written in one transaction, by the holder of `token` only, so no report
    is lost or counted twice. The token is random: a counter could repeat after a failover that lost the last commit.
    """

    venue = models.ForeignKey(Venue, on_delete=models.CASCADE, related_name="report_sessions", db_index=False)
    stream = models.CharField(max_length=64)
    next_sequence = models.BigIntegerField(db_default=1)
    token = models.UUIDField()
    holder = models.CharField(max_length=160)
    lease_expires_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["venue", "stream"], name="reportsession_stream_unique")]

    def __str__(self) -> str:
        return f"{self.venue_id} {self.stream} {self.next_sequence}"


class UnmatchedReport(models.Model):
    """A report of a venue that could not be applied to an order, kept as it came; `reason` says why."""

    venue = models.ForeignKey(Venue, on_delete=models.PROTECT, related_name="unmatched_reports", db_index=False)
    stream = models.CharField(max_length=64)
    sequence = models.BigIntegerField()
    reason = models.CharField(max_length=500)
    report = models.JSONField()
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["venue", "stream", "sequence"], name="unmatchedreport_sequence_unique")
        ]

    def __str__(self) -> str:
        return f"{self.venue_id} {self.stream} {self.sequence}"
