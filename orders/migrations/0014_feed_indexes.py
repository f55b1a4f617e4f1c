"""Made CONCURRENTLY, outside a transaction: orders are stored meanwhile. One that was cut off leaves an invalid index,
which must be dropped before the migration is run again."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("orders", "0013_stamps")]
    operations = [
        AddIndexConcurrently("orderevent", models.Index(fields=["stamp", "id"], name="orderevent_feed")),
        AddIndexConcurrently(
            "orderevent", models.Index(fields=["owner", "stamp", "id"], name="orderevent_feed_of_owner")
        ),
    ]
