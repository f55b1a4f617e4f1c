"""Incidents, of which people are told, and who may acknowledge them."""

import django.contrib.postgres.functions
import django.db.models.deletion
import django.db.models.functions.datetime
import uuid
from django.contrib.auth.management import create_permissions
from django.db import migrations, models

GROUPS = {
    "Viewer": ["view_incident"],
    "Operator": ["view_incident", "acknowledge_incident"],
    "Administrator": ["view_incident", "acknowledge_incident"],
}
FORWARDS = """
CREATE TRIGGER incidentevent_append_only BEFORE UPDATE OR DELETE ON quiktrade_incidentevent
    FOR EACH ROW EXECUTE FUNCTION refuse_to_change_history();
"""
BACKWARDS = "DROP TRIGGER incidentevent_append_only ON quiktrade_incidentevent;"


def permit(apps, schema_editor):
    config = apps.get_app_config("quiktrade")
    config.models_module = True
    create_permissions(config, apps=apps, verbosity=0)
    config.models_module = None
    permissions = apps.get_model("auth", "Permission").objects.filter(content_type__app_label="quiktrade")
    for name, codenames in GROUPS.items():
        for group in apps.get_model("auth", "Group").objects.filter(name=name):  # none where it was renamed
            group.permissions.add(*permissions.filter(codename__in=codenames))


class Migration(migrations.Migration):

    dependencies = [
        ('quiktrade', '0009_client_limits'),
        ('orders', '0002_append_only_events'),  # whose function the trigger calls
    ]

    operations = [
        migrations.CreateModel(
            name='Incident',
            fields=[
                ('id', models.UUIDField(db_default=django.contrib.postgres.functions.RandomUUID(), default=uuid.uuid4, primary_key=True, serialize=False)),
                ('kind', models.CharField(max_length=40)),
                ('subject', models.CharField(max_length=200)),
                ('severity', models.CharField(choices=[('page', 'Page'), ('ticket', 'Ticket')], max_length=10)),
                ('sentence', models.CharField(max_length=500)),
                ('advice', models.CharField(max_length=500)),
                ('value', models.FloatField()),
                ('worst', models.FloatField()),
                ('bad_looks', models.IntegerField(db_default=1)),
                ('good_looks', models.IntegerField(db_default=0)),
                ('first_seen_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('seen_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('opened_at', models.DateTimeField(null=True)),
                ('resolved_at', models.DateTimeField(null=True)),
                ('acknowledged_at', models.DateTimeField(null=True)),
                ('acknowledged_by', models.CharField(blank=True, db_default='', default='', max_length=160)),
                ('acknowledged_for', models.CharField(blank=True, db_default='', default='', max_length=500)),
            ],
            options={
                'ordering': ['-first_seen_at'],
                'permissions': [('acknowledge_incident', 'Can acknowledge incidents and send test alerts')],
            },
        ),
        migrations.CreateModel(
            name='IncidentEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('event', models.CharField(choices=[('opened', 'Opened'), ('acknowledged', 'Acknowledged'), ('resolved', 'Resolved')], max_length=12)),
                ('actor', models.CharField(max_length=160)),
                ('reason', models.CharField(max_length=500)),
                ('at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'ordering': ['id'],
            },
        ),
        migrations.CreateModel(
            name='Notice',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('what', models.CharField(choices=[('opened', 'Opened'), ('acknowledged', 'Acknowledged'), ('resolved', 'Resolved')], max_length=12)),
                ('channel', models.CharField(max_length=300)),
                ('due_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('tries', models.IntegerField(db_default=0)),
                ('sent_at', models.DateTimeField(null=True)),
                ('given_up_at', models.DateTimeField(null=True)),
                ('error', models.CharField(blank=True, db_default='', default='', max_length=500)),
            ],
        ),
        migrations.CreateModel(
            name='Sighting',
            fields=[
                ('pk', models.CompositePrimaryKey('kind', 'subject', blank=True, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(max_length=40)),
                ('subject', models.CharField(max_length=200)),
                ('sentence', models.CharField(max_length=500)),
                ('value', models.FloatField()),
                ('seen_at', models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name='Watch',
            fields=[
                ('id', models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                ('turn', models.BigIntegerField(db_default=1)),
                ('next_at', models.DateTimeField()),
            ],
        ),
        migrations.AddIndex(
            model_name='incident',
            index=models.Index(models.F('first_seen_at'), name='incident_list'),
        ),
        migrations.AddConstraint(
            model_name='incident',
            constraint=models.UniqueConstraint(condition=models.Q(('resolved_at__isnull', True)), fields=('kind', 'subject'), name='incident_open_once'),
        ),
        migrations.AddConstraint(
            model_name='incident',
            constraint=models.CheckConstraint(condition=models.Q(('resolved_at__isnull', True), ('opened_at__isnull', False), _connector='OR'), name='incident_resolved_was_open'),
        ),
        migrations.AddConstraint(
            model_name='incident',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('acknowledged_at__isnull', True), ('acknowledged_by', ''), ('acknowledged_for', '')), models.Q(('acknowledged_at__isnull', False), models.Q(('acknowledged_by', ''), _negated=True), models.Q(('acknowledged_for', ''), _negated=True)), _connector='OR'), name='incident_acknowledgement_has_actor_and_reason'),
        ),
        migrations.AddField(
            model_name='incidentevent',
            name='incident',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='events', to='quiktrade.incident'),
        ),
        migrations.AddField(
            model_name='notice',
            name='incident',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='notices', to='quiktrade.incident'),
        ),
        migrations.AddConstraint(
            model_name='watch',
            constraint=models.CheckConstraint(condition=models.Q(('id', 1)), name='one_watch'),
        ),
        migrations.AddIndex(
            model_name='notice',
            index=models.Index(models.F('channel'), models.F('due_at'), condition=models.Q(('given_up_at__isnull', True), ('sent_at__isnull', True)), name='notice_due'),
        ),
        migrations.AddConstraint(
            model_name='notice',
            constraint=models.UniqueConstraint(fields=('incident', 'what', 'channel'), name='notice_once'),
        ),
        migrations.RunSQL(FORWARDS, BACKWARDS),
        migrations.RunPython(permit, migrations.RunPython.noop),
    ]
