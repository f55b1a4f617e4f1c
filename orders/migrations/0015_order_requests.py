"""Requests to cancel and replace orders at venues. The column of the orders is null, so no row is written."""

import datetime
import django.db.models.deletion
import django.db.models.functions.datetime
import orders.models
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('exchanges', '0004_report_sessions'),
        ('orders', '0014_feed_indexes'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='OrderRequest',
            fields=[
                ('id', models.UUIDField(default=orders.models.new_order_id, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('cancel', 'Cancel'), ('replace', 'Replace')], max_length=7)),
                ('client_order_id', models.CharField(blank=True, db_default='', max_length=64)),
                ('quantity', models.BigIntegerField(null=True)),
                ('limit_price', models.DecimalField(decimal_places=8, max_digits=18, null=True)),
                ('stop_price', models.DecimalField(decimal_places=8, max_digits=18, null=True)),
                ('time_in_force', models.CharField(blank=True, choices=[('day', 'Day'), ('gtc', 'Good till cancel'), ('ioc', 'Immediate or cancel'), ('fok', 'Fill or kill'), ('gtd', 'Good till date')], db_default='', max_length=3)),
                ('expires_at', models.DateTimeField(null=True)),
                ('original_id', models.UUIDField(null=True)),
                ('terms', models.JSONField(null=True)),
                ('status', models.CharField(choices=[('waiting', 'Waiting'), ('pending', 'Pending'), ('submitting', 'Submitting'), ('sent', 'Sent'), ('unconfirmed', 'Unconfirmed'), ('accepted', 'Accepted'), ('refused', 'Refused'), ('moot', 'Moot'), ('superseded', 'Superseded'), ('failed', 'Failed')], max_length=11)),
                ('attempt', models.IntegerField(db_default=0)),
                ('failures', models.IntegerField(db_default=0)),
                ('next_attempt_at', models.DateTimeField(null=True)),
                ('lease_expires_at', models.DateTimeField(null=True)),
                ('look_up_at', models.DateTimeField(null=True)),
                ('settled_at', models.DateTimeField(null=True)),
                ('in_doubt', models.BooleanField(db_default=False)),
                ('code', models.CharField(blank=True, db_default='', max_length=500)),
                ('last_error', models.CharField(blank=True, db_default='', max_length=500)),
                ('actor', models.CharField(max_length=160)),
                ('reason', models.CharField(blank=True, max_length=500)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('updated_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('resolved_at', models.DateTimeField(null=True)),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.AddField(
            model_name='order',
            name='cancel_requested_at',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='orderrequest',
            name='order',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='requests', to='orders.order'),
        ),
        migrations.AddField(
            model_name='orderrequest',
            name='owner',
            field=models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='orderrequest',
            name='venue',
            field=models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='exchanges.venue'),
        ),
        migrations.AddIndex(
            model_name='orderrequest',
            index=models.Index(models.F('venue'), models.F('kind'), models.F('next_attempt_at'), condition=models.Q(('status', 'pending')), name='request_due'),
        ),
        migrations.AddIndex(
            model_name='orderrequest',
            index=models.Index(models.F('venue'), models.F('lease_expires_at'), condition=models.Q(('status', 'submitting')), name='request_leased'),
        ),
        migrations.AddIndex(
            model_name='orderrequest',
            index=models.Index(models.F('venue'), models.F('look_up_at'), condition=models.Q(('status__in', ('pending', 'sent', 'unconfirmed'))), name='request_look_up'),
        ),
        migrations.AddIndex(
            model_name='orderrequest',
            index=models.Index(models.F('created_at'), condition=models.Q(('status__in', ('waiting', 'pending', 'submitting', 'sent', 'unconfirmed'))), name='request_unanswered'),
        ),
        migrations.AddIndex(
            model_name='orderrequest',
            index=models.Index(models.F('order'), models.OrderBy(models.F('id'), descending=True), name='request_of_order'),
        ),
        migrations.AddConstraint(
            model_name='orderrequest',
            constraint=models.UniqueConstraint(condition=models.Q(('client_order_id', ''), _negated=True), fields=('owner', 'client_order_id'), name='request_id_unique'),
        ),
        migrations.AddConstraint(
            model_name='orderrequest',
            constraint=models.UniqueConstraint(condition=models.Q(('status__in', ('waiting', 'pending', 'submitting', 'sent', 'unconfirmed'))), fields=('order', 'kind'), name='request_one_open'),
        ),
        migrations.AddConstraint(
            model_name='orderrequest',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['cancel', 'replace'])), name='request_kind_known'),
        ),
        migrations.AddConstraint(
            model_name='orderrequest',
            constraint=models.CheckConstraint(condition=models.Q(('status__in', ['waiting', 'pending', 'submitting', 'sent', 'unconfirmed', 'accepted', 'refused', 'moot', 'superseded', 'failed'])), name='request_status_known'),
        ),
        migrations.AddConstraint(
            model_name='orderrequest',
            constraint=models.CheckConstraint(condition=models.Q(('quantity__isnull', True), ('quantity__gt', 0), _connector='OR'), name='request_quantity_positive'),
        ),
        migrations.AddConstraint(
            model_name='orderrequest',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('limit_price__isnull', True), ('limit_price__gt', 0), _connector='OR'), models.Q(('stop_price__isnull', True), ('stop_price__gt', 0), _connector='OR')), name='request_prices_positive'),
        ),
        migrations.AddConstraint(
            model_name='orderrequest',
            constraint=models.CheckConstraint(condition=models.Q(('time_in_force__in', ['', 'day', 'gtc', 'ioc', 'fok', 'gtd'])), name='request_tif_known'),
        ),
        migrations.AddConstraint(
            model_name='orderrequest',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('expires_at__isnull', True), ('kind', 'cancel'), ('limit_price__isnull', True), ('quantity__isnull', True), ('stop_price__isnull', True), ('time_in_force', '')), models.Q(('kind', 'replace'), models.Q(('quantity__isnull', False), ('limit_price__isnull', False), ('stop_price__isnull', False), models.Q(('time_in_force', ''), _negated=True), ('expires_at__isnull', False), _connector='OR')), _connector='OR'), name='request_terms_by_kind'),
        ),
        migrations.AddConstraint(
            model_name='orderrequest',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('lease_expires_at__isnull', False), ('status', 'submitting')), models.Q(models.Q(('status', 'submitting'), _negated=True), ('lease_expires_at__isnull', True)), _connector='OR'), name='request_lease_iff_submitting'),
        ),
        migrations.AddConstraint(
            model_name='orderrequest',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('status', 'pending'), _negated=True), ('next_attempt_at__isnull', False), _connector='OR'), name='request_pending_has_time'),
        ),
        migrations.AddConstraint(
            model_name='orderrequest',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('status__in', ['sent', 'unconfirmed']), _negated=True), ('look_up_at__isnull', False), _connector='OR'), name='request_in_question_has_time'),
        ),
        migrations.AddConstraint(
            model_name='orderrequest',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('resolved_at__isnull', True), ('status__in', ('waiting', 'pending', 'submitting', 'sent', 'unconfirmed'))), models.Q(models.Q(('status__in', ('waiting', 'pending', 'submitting', 'sent', 'unconfirmed')), _negated=True), ('resolved_at__isnull', False)), _connector='OR'), name='request_resolved_iff_closed'),
        ),
        migrations.AddConstraint(
            model_name='orderrequest',
            constraint=models.CheckConstraint(condition=models.Q(('next_attempt_at__range', (datetime.datetime(2000, 1, 1, 0, 0, tzinfo=datetime.UTC), datetime.datetime(9000, 1, 1, 0, 0, tzinfo=datetime.UTC))), ('lease_expires_at__range', (datetime.datetime(2000, 1, 1, 0, 0, tzinfo=datetime.UTC), datetime.datetime(9000, 1, 1, 0, 0, tzinfo=datetime.UTC))), ('look_up_at__range', (datetime.datetime(2000, 1, 1, 0, 0, tzinfo=datetime.UTC), datetime.datetime(9000, 1, 1, 0, 0, tzinfo=datetime.UTC))), ('settled_at__range', (datetime.datetime(2000, 1, 1, 0, 0, tzinfo=datetime.UTC), datetime.datetime(9000, 1, 1, 0, 0, tzinfo=datetime.UTC)))), name='request_times_readable'),
        ),
    ]
