"""A status more. The constraints that name the statuses are replaced without reading the rows while they are locked:
new rows are checked at once, and the next migration checks the old ones."""

from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models
from django.db.models import Q

STATUSES = [
    ("pending", "Pending"),
    ("submitting", "Submitting"),
    ("unconfirmed", "Unconfirmed"),
    ("failed", "Failed"),
    ("placed", "Placed"),
    ("partially_filled", "Partially Filled"),
    ("pending_cancel", "Pending Cancel"),
    ("pending_replace", "Pending Replace"),
    ("done_for_day", "Done For Day"),
    ("filled", "Filled"),
    ("canceled", "Canceled"),
    ("expired", "Expired"),
    ("rejected", "Rejected"),
]
KNOWN = models.CheckConstraint(
    condition=Q(status__in=[status for status, _ in STATUSES]), name="order_status_known"
)
HAS_ITS_ID = models.CheckConstraint(
    condition=~Q(
        status__in=(
            "placed", "partially_filled", "pending_cancel", "pending_replace", "done_for_day", "filled",
        )
    )
    | ~Q(venue_order_id=""),
    name="order_at_venue_has_its_id",
)


class Migration(migrations.Migration):
    dependencies = [("orders", "0008_parked_orders_are_asked_on")]
    operations = [
        migrations.AlterField("order", "status", models.CharField(choices=STATUSES, max_length=16)),
        migrations.AlterField("orderevent", "from_status", models.CharField(blank=True, choices=STATUSES, max_length=16)),
        migrations.AlterField("orderevent", "to_status", models.CharField(choices=STATUSES, max_length=16)),
        migrations.RemoveConstraint("order", "order_status_known"),
        AddConstraintNotValid("order", KNOWN),
        migrations.RemoveConstraint("order", "order_at_venue_has_its_id"),
        AddConstraintNotValid("order", HAS_ITS_ID),
    ]
