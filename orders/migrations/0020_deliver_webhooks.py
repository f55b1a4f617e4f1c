"""The job that delivers webhooks, who may look after them, and a way to find events by their time."""

from django.contrib.auth.management import create_permissions
from django.contrib.postgres.indexes import BrinIndex
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations

JOB = "deliver_webhooks"
GROUPS = {
    "Viewer": ["view_webhookendpoint", "view_webhookdelivery"],
    "Operator": ["view_webhookendpoint", "view_webhookdelivery", "operate_webhook"],
    "Administrator": ["view_webhookendpoint", "view_webhookdelivery", "operate_webhook"],
}


def schedule(apps, schema_editor):
    apps.get_model("django_q", "Schedule").objects.update_or_create(
        name=JOB, defaults={"func": f"orders.tasks.{JOB}", "schedule_type": "I", "minutes": 1, "repeats": -1}
    )


def unschedule(apps, schema_editor):
    apps.get_model("django_q", "Schedule").objects.filter(name=JOB).delete()


def permit(apps, schema_editor):
    config = apps.get_app_config("orders")
    config.models_module = True
    create_permissions(config, apps=apps, verbosity=0)
    config.models_module = None
    permissions = apps.get_model("auth", "Permission").objects.filter(content_type__app_label="orders")
    for name, codenames in GROUPS.items():
        for group in apps.get_model("auth", "Group").objects.filter(name=name):  # none where it was renamed
            group.permissions.add(*permissions.filter(codename__in=codenames))


class Migration(migrations.Migration):
    atomic = False  # an index is built while orders are accepted

    dependencies = [
        ("orders", "0019_webhooks"),
        ("quiktrade", "0003_settle_orders"),
        ("django_q", "0019_alter_task_options_alter_ormq_key_alter_ormq_lock_and_more"),
    ]
    operations = [
        migrations.RunPython(schedule, unschedule),
        migrations.RunPython(permit, migrations.RunPython.noop),
        # Events are stored in the order of their times, so this index is small and costs an insertion next to nothing.
        AddIndexConcurrently("orderevent", BrinIndex("at", name="orderevent_at")),
    ]
