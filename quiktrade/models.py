"""Worker nodes, as they report themselves; what the API knows its callers by; incidents, of which people are told."""

import uuid

from django.conf import settings
from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django_otp.models import Device, ThrottlingMixin


class WorkerNode(models.Model):
    """One job cluster. Its heartbeat passed through its pusher, one of its workers and its monitor."""

    name = models.CharField(primary_key=True, max_length=200)
    started_at = models.DateTimeField()
    heartbeat_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class SigningKey(models.Model):
    """A key pair that signs tokens. See quiktrade/auth/keys.py."""

    kid = models.CharField(primary_key=True, max_length=32)
    private = models.TextField()  # encrypted with a key that is derived from the secret key
    made_at = models.DateTimeField(db_default=Now())
    signs_from = models.DateTimeField()
    verifies_until = models.DateTimeField(null=True)  # null: until another key replaces it

    def __str__(self) -> str:
        return self.kid


class Session(models.Model):
    """A client's log-in: the refresh tokens of one chain. Only quiktrade/auth/sessions.py writes it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    generation = models.PositiveIntegerField(default=1)  # of the refresh token that is valid now
    made_at = models.DateTimeField(db_default=Now())
    refreshed_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)
    revoked_for = models.CharField(max_length=20, blank=True, default="")

    class Meta:
        indexes = [models.Index("revoked_at", name="session_reused", condition=Q(revoked_for="reuse"))]

    def __str__(self) -> str:
        return str(self.id)


class ApiClient(models.Model):
    """A service account: a program that acts for a client's account, with secrets of its own instead of a password."""

    id = models.CharField(primary_key=True, max_length=32)  # the client_id of RFC 6749
    name = models.CharField(max_length=100)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+", verbose_name="account")
    scope = models.CharField(max_length=100)
    networks = models.TextField(blank=True, default="")  # by spaces; empty: from anywhere
    made_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True, blank=True)
    disabled_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name = "service account"

    def __str__(self) -> str:
        return self.name


class ApiClientSecret(models.Model):
    """One of at most two secrets of a service account. It is a random number, so its SHA-256 is enough to keep."""

    client = models.ForeignKey(ApiClient, models.CASCADE, related_name="secrets")
    digest = models.CharField(max_length=64, unique=True)
    made_at = models.DateTimeField(db_default=Now())
    last_used_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.client_id} {self.pk}"


class SecondFactor(ThrottlingMixin, Device):  # type: ignore[misc]  # django-otp has no types
    """The authenticator app of an account of the console. See quiktrade/auth/second_factor.py."""

    key = models.TextField()  # encrypted with a key that is derived from the secret key
    last_step = models.BigIntegerField(default=-1)  # of the last code that was accepted

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user"], name="one_second_factor_per_account")]

    def get_throttle_factor(self) -> int:
        """How many seconds the first wrong code costs. Each further one costs twice as many."""
        return 1


class RecoveryCode(models.Model):
    """One of the codes for a lost app. It is a random number, so its SHA-256 is enough to keep."""

    second_factor = models.ForeignKey(SecondFactor, models.CASCADE, related_name="recovery_codes")
    digest = models.CharField(max_length=64)

    def __str__(self) -> str:
        return f"{self.second_factor_id} {self.pk}"


class LogInFailures(models.Model):
    """How often log-ins with a name failed from a network. See quiktrade/auth/guard.py."""

    pk = models.CompositePrimaryKey("name", "network")
    name = models.CharField(max_length=64)  # a keyed digest: people type passwords into this field, too
    network = models.CharField(max_length=50)  # * counts the networks from which the name never came in
    failures = models.PositiveIntegerField()
    last_at = models.DateTimeField()
    succeeded_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["succeeded_at", "last_at"], name="log_in_failures_age")]


class ClientLimits(models.Model):
    """What an operator has decided for a client. See quiktrade/limits.py."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="limits", verbose_name="account"
    )
    orders_per_second = models.PositiveIntegerField(null=True)  # 0: not limited; null: the default
    reads_per_second = models.PositiveIntegerField(null=True)

    def __str__(self) -> str:
        return str(self.user)


class TokenBucket(models.Model):
    """What a client may still send, of one kind. Only quiktrade/limits.py writes it. The table is unlogged."""

    pk = models.CompositePrimaryKey("user", "name")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+", db_index=False)
    name = models.CharField(max_length=10)
    tokens = models.FloatField()
    refilled_at = models.DateTimeField()


class Watch(models.Model):
    """Who judges next: whoever moves the `next_at` of the one row on. See quiktrade/alerts/incidents.py."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    turn = models.BigIntegerField(db_default=1)  # only the judgement of the latest turn is written
    next_at = models.DateTimeField()

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="one_watch")]

    def __str__(self) -> str:
        return f"turn {self.turn}"


class Sighting(models.Model):
    """Trouble that only the process that has it can see. It counts for as long as it is repeated."""

    pk = models.CompositePrimaryKey("kind", "subject")
    kind = models.CharField(max_length=40)
    subject = models.CharField(max_length=200)
    sentence = models.CharField(max_length=500)
    value = models.FloatField()
    seen_at = models.DateTimeField()


class Incident(models.Model):
    """Trouble of a kind with something, from its beginning to its end. There is one open row for each at most.

    Without `opened_at` it was seen, but not often enough to tell anybody; it is forgotten when it is not seen again.
    Only quiktrade/alerts/incidents.py writes it.
    """

    class Severity(models.TextChoices):
        PAGE = "page"
        """Wakes a person."""
        TICKET = "ticket"
        """Waits for the morning."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, db_default=RandomUUID())
    kind = models.CharField(max_length=40)
    subject = models.CharField(max_length=200)  # a venue, a node, an account …; empty where there is only one
    severity = models.CharField(max_length=10, choices=Severity)
    sentence = models.CharField(max_length=500)  # of the last look that saw it
    advice = models.CharField(max_length=500)
    value = models.FloatField()
    worst = models.FloatField()
    bad_looks = models.IntegerField(db_default=1)
    good_looks = models.IntegerField(db_default=0)  # since the last bad one
    first_seen_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now())
    opened_at = models.DateTimeField(null=True)
    resolved_at = models.DateTimeField(null=True)
    acknowledged_at = models.DateTimeField(null=True)
    acknowledged_by = models.CharField(max_length=160, blank=True, default="", db_default="")
    acknowledged_for = models.CharField(max_length=500, blank=True, default="", db_default="")

    class Meta:
        ordering = ["-first_seen_at"]
        permissions = [("acknowledge_incident", "Can acknowledge incidents and send test alerts")]
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "subject"], condition=Q(resolved_at__isnull=True), name="incident_open_once"
            ),
            models.CheckConstraint(
                condition=Q(resolved_at__isnull=True) | Q(opened_at__isnull=False), name="incident_resolved_was_open"
            ),
            models.CheckConstraint(
                condition=Q(acknowledged_at__isnull=True, acknowledged_by="", acknowledged_for="")
                | (Q(acknowledged_at__isnull=False) & ~Q(acknowledged_by="") & ~Q(acknowledged_for="")),
                name="incident_acknowledgement_has_actor_and_reason",
            ),
        ]
        indexes = [models.Index("first_seen_at", name="incident_list")]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}".strip()


class IncidentEvent(models.Model):
    """Append-only: a database trigger refuses UPDATE and DELETE."""

    class Event(models.TextChoices):
        OPENED = "opened"
        ACKNOWLEDGED = "acknowledged"
        RESOLVED = "resolved"

    incident = models.ForeignKey(Incident, models.PROTECT, related_name="events")
    event = models.CharField(max_length=12, choices=Event)
    actor = models.CharField(max_length=160)
    reason = models.CharField(max_length=500)
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.incident_id} {self.event}"


class Notice(models.Model):
    """What a channel is told of an incident: each thing once. Only quiktrade/alerts/notices.py sends it."""

    incident = models.ForeignKey(Incident, models.PROTECT, related_name="notices", db_index=False)
    what = models.CharField(max_length=12, choices=IncidentEvent.Event)
    channel = models.CharField(max_length=300)  # its name, which shows nothing of its secret
    created_at = models.DateTimeField(db_default=Now())
    due_at = models.DateTimeField(db_default=Now())
    tries = models.IntegerField(db_default=0)
    sent_at = models.DateTimeField(null=True)
    given_up_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=500, blank=True, default="", db_default="")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["incident", "what", "channel"], name="notice_once")]
        indexes = [
            models.Index(
                "channel",
                "due_at",
                name="notice_due",
                condition=Q(sent_at__isnull=True, given_up_at__isnull=True),
            )
        ]

    def __str__(self) -> str:
        return f"{self.incident_id} {self.what} {self.channel}"
