"""The safety net under the doorbell: every job runs once a minute, whatever else was lost."""

from django.db import migrations

JOBS = ("place_due_orders", "sweep_orders", "reconcile_orders")


def forwards(apps, schema_editor):
    schedule = apps.get_model("django_q", "Schedule")
    for job in JOBS:
        schedule.objects.update_or_create(
            name=job, defaults={"func": f"orders.tasks.{job}", "schedule_type": "I", "minutes": 1, "repeats": -1}
        )


def backwards(apps, schema_editor):
    apps.get_model("django_q", "Schedule").objects.filter(name__in=JOBS).delete()


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0002_append_only_events"),
        ("django_q", "0019_alter_task_options_alter_ormq_key_alter_ormq_lock_and_more"),
    ]
    operations = [migrations.RunPython(forwards, backwards)]
