"""What executions are read by: a client's list, an order, a position. Made while the table is written to."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("orders", "0017_positions_realized")]
    operations = [
        AddIndexConcurrently(
            model_name="execution",
            index=models.Index(
                condition=models.Q(("kind", "busted"), _negated=True),
                fields=["owner", "executed_at", "id"],
                name="execution_list",
            ),
        ),
        AddIndexConcurrently(
            model_name="execution",
            index=models.Index(fields=["order"], name="execution_order"),
        ),
        AddIndexConcurrently(
            model_name="execution",
            index=models.Index(fields=["owner", "venue", "instrument", "id"], name="execution_position"),
        ),
    ]
