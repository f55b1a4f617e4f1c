"""The index is made while orders are written: the table is large."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("orders", "0015_order_requests")]
    operations = [
        AddIndexConcurrently(
            "order",
            models.Index(
                models.F("owner"),
                models.F("id"),
                condition=models.Q(
                    (
                        "status__in",
                        ("placed", "partially_filled", "pending_cancel", "pending_replace", "done_for_day"),
                    )
                ),
                name="order_working",
            ),
        ),
    ]
