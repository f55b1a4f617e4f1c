"""Executions, written once, and the positions that follow from them."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations, models

APPEND_ONLY = """
CREATE TRIGGER execution_append_only BEFORE UPDATE OR DELETE ON orders_execution
    FOR EACH ROW EXECUTE FUNCTION refuse_to_change_history()
"""
# A position changes with every execution: the room left on its page spares the index.
ROOM = "ALTER TABLE orders_position SET (fillfactor = 50)"


class Migration(migrations.Migration):

    dependencies = [
        ('exchanges', '0004_report_sessions'),
        ('orders', '0011_reported_facts'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        ValidateConstraint('order', 'order_filled_not_negative'),
        ValidateConstraint('order', 'order_ended_known'),
        migrations.CreateModel(
            name='Execution',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('venue', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='exchanges.venue')),
                ('execution_id', models.CharField(max_length=64)),
                ('kind', models.CharField(choices=[('executed', 'Executed'), ('busted', 'Busted'), ('corrected', 'Corrected')], max_length=10)),
                ('refers_to', models.CharField(blank=True, max_length=64)),
                ('order', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='executions', to='orders.order')),
                ('owner', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('instrument', models.CharField(max_length=12)),
                ('side', models.CharField(choices=[('buy', 'Buy'), ('sell', 'Sell')], max_length=4)),
                ('quantity', models.BigIntegerField()),
                ('price', models.DecimalField(decimal_places=8, max_digits=18, null=True)),
                ('venue_sequence', models.BigIntegerField()),
                ('executed_at', models.DateTimeField()),
                ('recorded_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'ordering': ['id'],
            },
        ),
        migrations.CreateModel(
            name='Position',
            fields=[
                ('pk', models.CompositePrimaryKey('owner_id', 'venue_id', 'instrument', blank=True, editable=False, primary_key=True, serialize=False)),
                ('owner', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('venue', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='exchanges.venue')),
                ('instrument', models.CharField(max_length=12)),
                ('bought_quantity', models.DecimalField(decimal_places=0, max_digits=30)),
                ('bought_value', models.DecimalField(decimal_places=8, max_digits=48)),
                ('sold_quantity', models.DecimalField(decimal_places=0, max_digits=30)),
                ('sold_value', models.DecimalField(decimal_places=8, max_digits=48)),
                ('updated_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
        ),
        migrations.AddIndex(
            model_name='execution',
            index=models.Index(condition=models.Q(('refers_to', ''), _negated=True), fields=['venue', 'refers_to'], name='execution_referred'),
        ),
        migrations.AddConstraint(
            model_name='execution',
            constraint=models.UniqueConstraint(fields=('venue', 'execution_id'), name='execution_once'),
        ),
        migrations.AddConstraint(
            model_name='execution',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('kind', 'executed'), ('price__gt', 0), ('price__isnull', False), ('quantity__gt', 0), ('refers_to', '')), models.Q(('kind', 'corrected'), ('price__gt', 0), ('price__isnull', False), ('quantity__gt', 0), models.Q(('refers_to', ''), _negated=True)), models.Q(('kind', 'busted'), ('price__isnull', True), ('quantity', 0), models.Q(('refers_to', ''), _negated=True)), _connector='OR'), name='execution_by_kind'),
        ),
        migrations.RunSQL(APPEND_ONLY, 'DROP TRIGGER execution_append_only ON orders_execution'),
        migrations.RunSQL(ROOM, migrations.RunSQL.noop),
    ]
