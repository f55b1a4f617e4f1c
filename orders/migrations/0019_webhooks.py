"""The endpoints of webhooks, and what is to be delivered to them."""

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
import orders.webhook_models
from django.conf import settings
from django.db import migrations, models


# Both are changed again and again while they live: the room left on their pages spares indexes.
ROOM = """
ALTER TABLE orders_webhookendpoint SET (fillfactor = 50);
ALTER TABLE orders_webhookdelivery SET (fillfactor = 80)
"""


class Migration(migrations.Migration):

    dependencies = [
        ('orders', '0018_execution_indexes'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='WebhookEndpoint',
            fields=[
                ('id', models.UUIDField(default=orders.webhook_models.new_webhook_id, editable=False, primary_key=True, serialize=False)),
                ('url', models.CharField(max_length=1000)),
                ('description', models.CharField(blank=True, max_length=200)),
                ('event_types', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=40), blank=True, default=list, size=None)),
                ('secret', models.CharField(max_length=100)),
                ('old_secret', models.CharField(blank=True, max_length=100)),
                ('old_secret_until', models.DateTimeField(null=True)),
                ('cursor_stamp', models.BigIntegerField()),
                ('cursor_id', models.BigIntegerField()),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('disabled_at', models.DateTimeField(null=True)),
                ('disabled_by', models.CharField(blank=True, max_length=160)),
                ('disabled_reason', models.CharField(blank=True, max_length=500)),
                ('deleted_at', models.DateTimeField(null=True)),
                ('failing_since', models.DateTimeField(null=True)),
                ('failures', models.IntegerField(default=0)),
                ('slow', models.BooleanField(default=False)),
                ('paused_until', models.DateTimeField(null=True)),
                ('last_success_at', models.DateTimeField(null=True)),
                ('last_error', models.CharField(blank=True, max_length=500)),
                ('owner', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'verbose_name': 'webhook',
                'ordering': ['-id'],
                'permissions': [('operate_webhook', 'Can enable and disable webhooks and send their events again')],
            },
        ),
        migrations.CreateModel(
            name='WebhookDelivery',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('status', models.CharField(choices=[('pending', 'Pending'), ('sending', 'Sending'), ('delivered', 'Delivered'), ('dead', 'Dead')], default='pending', max_length=9)),
                ('attempt', models.IntegerField(default=0)),
                ('failures', models.IntegerField(default=0)),
                ('due_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('ended_at', models.DateTimeField(null=True)),
                ('last_code', models.IntegerField(null=True)),
                ('last_text', models.CharField(blank=True, max_length=500)),
                ('latency_ms', models.IntegerField(null=True)),
                ('event', models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='orders.orderevent')),
                ('endpoint', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='deliveries', to='orders.webhookendpoint')),
            ],
            options={
                'verbose_name': 'webhook delivery',
                'verbose_name_plural': 'webhook deliveries',
                'ordering': ['-id'],
            },
        ),
        migrations.AddConstraint(
            model_name='webhookendpoint',
            constraint=models.CheckConstraint(condition=models.Q(('disabled_at__isnull', True), models.Q(('disabled_reason', ''), _negated=True), _connector='OR'), name='webhook_disabled_says_why'),
        ),
        migrations.AddConstraint(
            model_name='webhookendpoint',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('old_secret', ''), ('old_secret_until__isnull', True)), models.Q(models.Q(('old_secret', ''), _negated=True), ('old_secret_until__isnull', False)), _connector='OR'), name='webhook_old_secret_ends'),
        ),
        migrations.AddIndex(
            model_name='webhookdelivery',
            index=models.Index(models.F('endpoint'), models.F('due_at'), condition=models.Q(('status__in', ['pending', 'sending'])), name='webhook_due'),
        ),
        migrations.AddIndex(
            model_name='webhookdelivery',
            index=models.Index(models.F('endpoint'), models.F('due_at'), condition=models.Q(('status', 'sending')), name='webhook_sending'),
        ),
        migrations.AddIndex(
            model_name='webhookdelivery',
            index=models.Index(models.F('status'), models.F('ended_at'), condition=models.Q(('ended_at__isnull', False)), name='webhook_ended'),
        ),
        migrations.AddIndex(
            model_name='webhookdelivery',
            index=models.Index(models.F('endpoint'), models.F('id'), name='webhook_list'),
        ),
        migrations.AddIndex(
            model_name='webhookdelivery',
            index=models.Index(models.F('endpoint'), models.F('id'), condition=models.Q(('status', 'dead')), name='webhook_dead'),
        ),
        migrations.AddConstraint(
            model_name='webhookdelivery',
            constraint=models.UniqueConstraint(fields=('endpoint', 'event'), name='webhook_event_once'),
        ),
        migrations.AddConstraint(
            model_name='webhookdelivery',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('ended_at__isnull', True), ('status__in', ['pending', 'sending'])), models.Q(('ended_at__isnull', False), ('status__in', ['delivered', 'dead'])), _connector='OR'), name='webhook_ended_iff_over'),
        ),
        migrations.RunSQL(ROOM, migrations.RunSQL.noop),
    ]
