"""Users, venues and orders to test with. An order is made, and moved to where a test needs it, by the lifecycle."""

# factory-boy calls itself typed, but its functions are not.
# mypy: disable-error-code="attr-defined, misc, name-defined, no-untyped-call, untyped-decorator"

from datetime import timedelta
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any
from uuid import UUID

import factory
from django.contrib.auth.models import Group, Permission, User
from django.utils import timezone

from exchanges import circuit
from exchanges.models import ReportSession, Venue
from exchanges.venue import ExecutionReport, ReportKind
from orders import lifecycle
from orders.lifecycle import Event, Step
from orders.models import LIMIT_TYPES, STOP_TYPES, Order, Status, new_order_id
from orders.reports import Checkpoint, ingest
from quiktrade.models import WorkerNode

ACTOR = "system:factory"
LEASE_SECONDS = 30.0
LOOK_UP_SECONDS = 60.0
REQUEST_ID = UUID("019a0000-0000-7000-8000-0000000000ff")
"""Of the cancel or replace that an order of the factory waits for."""
UNREACHABLE = "http://127.0.0.1:9"
"""Nobody listens on the discard port, so a test that places by mistake reaches no exchange on this machine."""


def console_group(name: str) -> Group:
    """The group as its migration makes it, even after a transactional test has emptied the tables."""
    group, missing = Group.objects.get_or_create(name=name)
    if missing:
        for part in import_module("quiktrade.migrations.0002_groups").GROUPS[name]:
            for label, codenames in part.items():
                found = Permission.objects.filter(content_type__app_label=label, codename__in=codenames)
                group.permissions.add(*found)
        ours = import_module("quiktrade.migrations.0006_service_accounts").GROUPS.get(name, [])
        ours = ours + import_module("quiktrade.migrations.0010_incidents").GROUPS[name]
        group.permissions.add(*Permission.objects.filter(content_type__app_label="quiktrade", codename__in=ours))
        webhooks = import_module("orders.migrations.0020_deliver_webhooks").GROUPS[name]
        group.permissions.add(*Permission.objects.filter(content_type__app_label="orders", codename__in=webhooks))
    return group


class UserFactory(factory.django.DjangoModelFactory[User]):
    """A client; with `group="Viewer"` or another of the console's groups, a member of staff.

    Log in with `force_login`, or give `password=` where the log-in itself is tested.
    """

    class Meta:
        model = User
        skip_postgeneration_save = True

    if TYPE_CHECKING:  # a call makes the row, not the factory

        def __new__(cls, **given: Any) -> User: ...

    username = factory.Sequence(lambda n: f"user{n}")
    password = factory.django.Password(None)

    @factory.post_generation
    def group(self, create: bool, name: str | None, **_: Any) -> None:
        if name is not None:
            self.is_staff = True
            self.save()
            self.groups.add(console_group(name))


class VenueFactory(factory.django.DjangoModelFactory[Venue]):
    """XSIM, the default venue, or a venue with another `code`. If there is one already, it is returned."""

    class Meta:
        model = Venue
        django_get_or_create = ("code",)

    if TYPE_CHECKING:  # a call makes the row, not the factory

        def __new__(cls, **given: Any) -> Venue: ...

    code = "XSIM"
    name = "Simulated exchange"
    adapter = "simulator"
    settings = factory.LazyFunction(lambda: {"url": UNREACHABLE})
    is_default = factory.LazyAttribute(lambda venue: venue.code == "XSIM")


class WorkerNodeFactory(factory.django.DjangoModelFactory[WorkerNode]):
    """A worker node that had a heartbeat just now."""

    class Meta:
        model = WorkerNode
        django_get_or_create = ("name",)

    if TYPE_CHECKING:  # a call makes the row, not the factory

        def __new__(cls, **given: Any) -> WorkerNode: ...

    name = "node-1"
    started_at = factory.LazyFunction(timezone.now)
    heartbeat_at = factory.LazyFunction(timezone.now)


def silent_venue(code: str = "XSIM", *, times: int = 7, error: str = "no answer in 5 s") -> Venue:
    """A venue that left this many requests unanswered; from the fifth on its circuit is open."""
    venue = VenueFactory(code=code)
    circuit.permit(code, 1)
    circuit.record_silence(code, requests=times, probe=False, error=error)
    return venue


def report(order_id: UUID, venue: str, kind: ReportKind, **given: Any) -> None:
    """Have the venue report something of an order, as the next report of its stream."""
    session, _ = ReportSession.objects.get_or_create(
        venue_id=venue,
        stream="factory",
        defaults={"token": REQUEST_ID, "holder": "factory", "lease_expires_at": timezone.now()},
    )
    session.refresh_from_db()
    at = Checkpoint(venue, session.stream, session.token, session.next_sequence)
    row = Order.objects.get(pk=order_id)
    given = {
        "client_order_id": str(order_id),
        "venue_order_id": row.venue_order_id or f"V-{order_id}",
        "execution_id": f"E-{at.next_sequence}",
        **given,
    }
    ingest([ExecutionReport(sequence=at.next_sequence, kind=kind, **given)], at, lease=LEASE_SECONDS)


class OrderFactory(factory.Factory[Order]):
    """An order in any status that the lifecycle leads to: `OrderFactory(status="failed")`.

    `attempts` is how many times it was claimed on the way, `error` what was wrong with them, `delay` the
    seconds until a pending order is due or an unconfirmed one looked up, negative for one that has been due for so
    long, and `parked=True` makes an unconfirmed order one that waits for an operator.
    """

    class Meta:
        model = Order

    if TYPE_CHECKING:  # a call makes the row, not the factory

        def __new__(cls, **given: Any) -> Order: ...

    owner = factory.SubFactory(UserFactory)
    venue = factory.SubFactory(VenueFactory)
    client_order_id = factory.Sequence(lambda n: f"order-{n}")
    instrument = "US0378331005"
    side = "buy"
    type = "limit"
    quantity = 100
    limit_price = factory.LazyAttribute(lambda order: Decimal("10.25") if order.type in LIMIT_TYPES else None)
    stop_price = factory.LazyAttribute(lambda order: Decimal("10.00") if order.type in STOP_TYPES else None)
    time_in_force = "day"
    expires_at = None
    place_by = None

    status = Status.PENDING
    attempts = factory.LazyAttribute(
        lambda order: 0 if order.status in (Status.PENDING, Status.CANCELED, Status.EXPIRED) else 1
    )
    error = "connection_refused: nobody listens there"
    delay: float | None = None
    parked = False
    venue_order_id = factory.Sequence(lambda n: f"V{n}")

    @classmethod
    def _create(cls, model_class: Any, *args: Any, **given: Any) -> Order:
        names = ("status", "attempts", "error", "delay", "parked", "venue_order_id")
        status, attempts, error, delay, parked, venue_order_id = (given.pop(name) for name in names)
        owner, venue = given.pop("owner"), given.pop("venue")
        row = lifecycle.NewRow(
            actor=f"client:{owner.username}", id=new_order_id(), owner_id=owner.pk, venue_id=venue.pk, **given
        )
        if row.id not in lifecycle.accept([row]):
            raise ValueError(f"{owner} has an order {row.client_order_id!r} already")

        def take(event: Event, **step: Any) -> None:
            if not lifecycle.advance([Step(order_id=row.id, event=event, **step)], actor=ACTOR).moved:
                raise ValueError(f"{event} leads nowhere from {Order.objects.get(pk=row.id).status}")

        # Every attempt but the one that decides did not reach the venue.
        decisive = 0 if status in (Status.PENDING, Status.FAILED, Status.CANCELED, Status.EXPIRED) else 1
        for attempt in range(1, attempts - decisive + 1):
            take(Event.CLAIMED, delay=LEASE_SECONDS)
            take(Event.NOT_SENT, attempt=attempt, reason=error, delay=delay)
        if decisive:
            take(Event.CLAIMED, delay=LEASE_SECONDS)
        match status:
            case Status.PENDING | Status.SUBMITTING:
                pass
            case Status.UNCONFIRMED:
                look_up = None if parked else LOOK_UP_SECONDS if delay is None else delay
                take(Event.OUTCOME_UNKNOWN, reason=error, delay=look_up)
            case Status.FAILED:
                take(Event.ATTEMPTS_EXHAUSTED, reason=f"{attempts} attempts did not reach the venue.")
            case Status.PLACED:
                take(Event.ACKNOWLEDGED, venue_order_id=venue_order_id)
            case Status.PARTIALLY_FILLED | Status.FILLED | Status.DONE_FOR_DAY | Status.PENDING_CANCEL:
                take(Event.ACKNOWLEDGED, venue_order_id=venue_order_id)
            case Status.PENDING_REPLACE:
                take(Event.ACKNOWLEDGED, venue_order_id=venue_order_id)
            case Status.REJECTED:
                take(Event.REJECTED_BY_VENUE, reason=error)
            case Status.EXPIRED:
                take(Event.PLACE_BY_PASSED)
            case Status.CANCELED:
                take(Event.CANCEL_REQUESTED, reason="Not wanted any more")
            case _:
                raise ValueError(f"the lifecycle has no way to {status!r} yet")
        match status:
            case Status.PENDING_CANCEL:
                take(Event.CANCEL_ASKED, request_id=REQUEST_ID)
            case Status.PENDING_REPLACE:
                take(Event.REPLACE_ASKED, request_id=REQUEST_ID)
            case Status.PARTIALLY_FILLED:
                report(row.id, venue.pk, ReportKind.EXECUTED, quantity=row.quantity * 2 // 5, price=Decimal("10.25"))
            case Status.FILLED:
                report(row.id, venue.pk, ReportKind.EXECUTED, quantity=row.quantity, price=Decimal("10.25"))
            case Status.DONE_FOR_DAY:
                report(row.id, venue.pk, ReportKind.DONE_FOR_DAY)
        if delay is not None and delay < 0:  # the lifecycle puts nothing off into the past: there, time passes
            due_at = timezone.now() + timedelta(seconds=delay)
            Order.objects.filter(pk=row.id).update(next_attempt_at=due_at)
        return Order.objects.get(pk=row.id)
