"""What venues report of an order. The columns have constant defaults, so no row is written; the constraints hold for new
rows at once, and the next migration checks the old ones."""

from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [('orders', '0010_check_statuses')]

    operations = [
        migrations.AddField(
            model_name='order',
            name='current_id',
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name='order',
            name='ended',
            field=models.CharField(blank=True, db_default='', max_length=12),
        ),
        migrations.AddField(
            model_name='order',
            name='filled_quantity',
            field=models.BigIntegerField(db_default=0),
        ),
        migrations.AddField(
            model_name='order',
            name='filled_value',
            field=models.DecimalField(db_default=0, decimal_places=8, max_digits=38),
        ),
        migrations.AddField(
            model_name='order',
            name='open_cancel',
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name='order',
            name='open_replace',
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name='order',
            name='original_terms',
            field=models.JSONField(null=True),
        ),
        migrations.AddField(
            model_name='order',
            name='venue_sequence',
            field=models.BigIntegerField(db_default=0),
        ),
        AddConstraintNotValid(
            model_name='order',
            constraint=models.CheckConstraint(condition=models.Q(('filled_quantity__gte', 0)), name='order_filled_not_negative'),
        ),
        AddConstraintNotValid(
            model_name='order',
            constraint=models.CheckConstraint(condition=models.Q(('ended__in', ('', 'done_for_day', 'canceled', 'expired', 'rejected'))), name='order_ended_known'),
        ),
    ]
