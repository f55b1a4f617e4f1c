"""Old rows are checked in a transaction of its own, which holds no lock that a reader or a writer waits for."""

from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("orders", "0009_done_for_day")]
    operations = [
        ValidateConstraint("order", "order_status_known"),
        ValidateConstraint("order", "order_at_venue_has_its_id"),
    ]
