"""Operators may vouch for what is at a venue: a permission of its own, to take away where two pairs of eyes are wanted."""

from django.contrib.auth.management import create_permissions
from django.db import migrations


def forwards(apps, schema_editor):
    config = apps.get_app_config("orders")
    config.models_module = True
    create_permissions(config, apps=apps, verbosity=0)
    config.models_module = None
    permission = apps.get_model("auth", "Permission").objects.get(
        content_type__app_label="orders", codename="settle_order"
    )
    for group in apps.get_model("auth", "Group").objects.filter(name__in=("Operator", "Administrator")):
        group.permissions.add(permission)


class Migration(migrations.Migration):
    dependencies = [("quiktrade", "0002_groups"), ("orders", "0004_deadlines")]
    operations = [migrations.RunPython(forwards, migrations.RunPython.noop)]
