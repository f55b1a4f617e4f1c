"""The schedule of the job that moves old orders to the archive. It does nothing where no archive is configured."""

from django.db import migrations

JOB = "move_old_orders"


def schedule(apps, schema_editor):
    apps.get_model("django_q", "Schedule").objects.update_or_create(
        name=JOB, defaults={"func": f"orders.tasks.{JOB}", "schedule_type": "I", "minutes": 1, "repeats": -1}
    )


def unschedule(apps, schema_editor):
    apps.get_model("django_q", "Schedule").objects.filter(name=JOB).delete()


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0022_archive"),
        ("django_q", "0019_alter_task_options_alter_ormq_key_alter_ormq_lock_and_more"),
    ]
    operations = [migrations.RunPython(schedule, unschedule)]
